"""One run of a network in which every layer is stood in for, so that it falls into segments that can be differentiated.

Every layer that has outputs of its own (a convolution, a linear layer, a norm) notes what it reads, and writes numbers
that nothing is known of. Between what layers write and what the next layers read lies whatever lies there: add,
concatenate, chunk, shuffle, reshape, attention.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from autoprune.structure.chosen_values import choices_of, reading_all
from autoprune.structure.differentiated import differentiated
from autoprune.structure.examples import Example, with_gradients
from autoprune.structure.groups import Axis, IntArray
from autoprune.structure.layer_flow import Flow, Nodes, leaves_places, stands_for
from autoprune.structure.layer_types import ATTENTIONS, CONVOLUTIONS, tensor_axes
from autoprune.structure.own_normalisations import may_normalise, mixed_entries
from autoprune.structure.skipped_modules import patched_forward
from autoprune.structure.weight_functions import (
    MEANS,
    Factors,
    Operands,
    Weights,
    factors_of,
    in_pairs,
    operands_of,
    sum_factors,
)
from autoprune.structure.weighted_gradients import as_real

JOINING = frozenset(
    {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, torch.sub, Tensor.sub,
     Tensor.__sub__, Tensor.__rsub__, torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__}
)  # fmt: skip
MIXED = "each of its outputs reaches all that"
REACHES_ALL = f"{MIXED} {{}} reads, as with a softmax over them or a map for all of them"
NO_LAYER = "a parameter of the network itself"
DETACHES = frozenset({Tensor.detach, torch.detach, Tensor.data.__get__})  # type: ignore[attr-defined]


class Alive(TorchFunctionMode):
    """Activations that are flat somewhere hand on their inputs, and so does what ends a graph of derivatives.

    Args:
        weights: The parameters that functions may multiply by.
        product: (outputs, operands) → what stands for the outputs of such a function; None for these themselves.
        contraction: (outputs, activations, whether it is a mean) → what stands for a sum over their units; None for
            these themselves.
    """

    def __init__(
        self,
        weights: Weights,
        product: Callable[[Tensor, Operands], Tensor | None],
        contraction: Callable[[Tensor, Factors, bool], Tensor | None],
    ) -> None:
        super().__init__()
        self.weights, self.product, self.contraction = weights, product, contraction
        self.joined: list[Tensor] = []
        """What was made of two tensors entry by entry."""

    FLAT = frozenset(
        {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh, F.hardtanh_,
         F.hardswish, F.hardsigmoid, F.threshold, torch.clamp, Tensor.clamp, torch.clamp_,
         Tensor.clamp_, torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_, torch.clamp_max, Tensor.clamp_max,
         torch.round, Tensor.round, torch.floor, Tensor.floor, torch.ceil, Tensor.ceil, torch.trunc, Tensor.trunc,
         torch.sign, Tensor.sign, *DETACHES}
    )  # fmt: skip

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:  # a frozen part of the network, run without gradients
            return None
        if func is Tensor.numpy:
            return func(args[0].detach(), *args[1:], **(kwargs or {}))
        if func in self.FLAT and args and isinstance(args[0], Tensor) and args[0].requires_grad:
            return args[0] * 1
        if func is F.normalize:
            with self:  # whose length is a sum over units
                return _by_length(*args, **(kwargs or {}))
        factors = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
        if func is torch.einsum and len(factors) > 2 and isinstance(args[0], str):
            with self:  # a product of several is one of two at a time
                return in_pairs(args[0], factors, self.weights)
        result = func(*args, **(kwargs or {}))
        if not torch.is_grad_enabled():
            return result
        rivals = choices_of(func, args, kwargs or {})
        if rivals:
            result = reading_all(result, rivals)
        if (func in JOINING or len(rivals) > 1) and isinstance(result, Tensor) and result.requires_grad:
            self.joined.append(as_real(result))
        operands = operands_of(func, args, kwargs or {}, self.weights)
        sums = factors_of(func, args, self.weights) or sum_factors(func, args, kwargs or {})
        if sums is not None and not isinstance(result, Tensor):
            values = self.contraction(result[0], sums, func in MEANS)
            return result if values is None else type(result)((values, *result[1:]))
        if operands is not None or sums is not None:
            written = self.product(result, operands) if operands else self.contraction(result, sums, func in MEANS)  # type: ignore[arg-type]
            return result if written is None else written
        return self.weights.note(func, args, kwargs or {}, result)


def _by_length(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """What torch.nn.functional.normalize returns, from functions that are looked at one by one."""
    length: Tensor = torch.norm(input, p, dim, True)
    return input / length.clamp_min(eps)


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """A tensor of which one dimension's indices are nodes: what a layer reads, or what it writes."""

    layer: str
    """The layer's qualified name."""
    tensor: Tensor
    """What is read or written."""
    dim: int
    """Whose indices are nodes."""
    nodes: IntArray
    """[size of the dimension]"""
    handed_on: tuple["HandedOn", ...] = ()
    """Units along other dimensions of what is read, which the layer leaves where they are."""


@dataclass(frozen=True, slots=True, eq=False)
class HandedOn:
    """Units that lie along a dimension that a layer does not read along: features, where nodes of a graph are mixed."""

    dim: int
    """Of the tensor that is read, and of what the layer writes."""
    nodes: IntArray
    """[size of the dimension]"""
    sources: tuple[Tap, ...]
    """What wrote them."""


@dataclass(slots=True, eq=False)
class Couplings:
    """What is coupled in one network."""

    nodes: Nodes
    """All entries of layers' axes."""
    edges: list[IntArray] = field(default_factory=list)
    """Pairs of nodes that go together."""
    hubs: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    """Sets of written and of read nodes, each written one of which is read in all of the others."""
    pinned: dict[int, str] = field(default_factory=dict)
    """Node → why it cannot go."""
    read: set[int] = field(default_factory=set)
    """Nodes of what is written and is read, or put out, somewhere."""
    ran: dict[str, None] = field(default_factory=dict)
    """Layers that were called, in order."""
    averaged: set[int] = field(default_factory=set)
    """Nodes over which a mean or a maximum is taken."""
    functions: set[tuple[str, Axis]] = field(default_factory=set)
    """Axes of parameters that a linear function writes by."""
    folded: set[str] = field(default_factory=set)
    """Normalisations that read several units of one layer in one column, as those of all heads."""

    def connect(self, first: IntArray, second: IntArray) -> None:
        self.edges.append(np.stack(np.broadcast_arrays(first, second), axis=1).reshape(-1, 2))


class SegmentedRun:
    """One run of the network with stand-ins: the tensors that layers wrote and read, with a graph of derivatives.

    Args:
        model: The network.
        couplings: What is found out goes there.
        last: Parameters with several dimensions that may be units, of which the last one is taken.
        through: Layers that are not stood in for.
    """

    def __init__(
        self,
        model: nn.Module,
        couplings: Couplings,
        last: Collection[tuple[str, str]] = (),
        through: Collection[str] = (),
    ) -> None:
        self.model, self.couplings, self._last, self._through = model, couplings, last, through
        self.written: list[Tap] = []
        self.reads: list[Tap] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.joined: list[Tensor] = []
        self.free: dict[tuple[str, str], Tensor] = {}
        """(module, key) of every parameter and buffer of no layer → the leaf that stood for it."""
        self.normalised: list[tuple[str, Tensor, Tensor]] = []
        """Modules that may normalise, each with what it read, and which entries of that its first output reads."""
        self.random = torch.Generator().manual_seed(0)
        self._owners: dict[int, tuple[str, str]] = {}
        self._sums: list[Tensor] = []
        self.single_units: Callable[[Tensor, int], list[tuple[IntArray, IntArray]] | None] | None = None
        """(tensor, dim) → for every layer that it is computed from, pairs of a node and where along dim it is read;
        None where not each is read in one place. Without this function, sums over units are not looked at."""
        self.handed_on: Callable[[Tensor, int], HandedOn | None] | None = None
        """(tensor, dim) → the units that lie along it, if there is one at every place; None: nobody looks at that."""
        self.weights = Weights({}, last)

    def record(self, example: Example) -> None:
        """Runs the network on the example, every layer stood in for, parameters of no layer as leaves."""
        example, self.inputs = with_gradients(example)
        parts = {part for whole in self.model.modules() if isinstance(whole, ATTENTIONS) for part in whole.children()}
        layers = {
            n: m for n, m in self.model.named_modules() if stands_for(m) and m not in parts and n not in self._through
        }
        forwards = {module: self._stand_in(name, module) for name, module in layers.items()}
        held = {id(t) for module in layers.values() for t in (*module.parameters(), *module.buffers())}
        replaced: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
        leaves: dict[int, Tensor] = {}
        for name, module in self.model.named_modules():
            if module not in forwards and may_normalise(module):
                forwards[module] = self._straight_through(name, module)
            for store in (module._parameters, module._buffers):
                for key, tensor in store.items():
                    if (
                        tensor is not None
                        and id(tensor) not in held
                        and (tensor.is_floating_point() or tensor.is_complex())
                    ):
                        replaced.append((store, key, tensor))
                        self.free[name, key] = leaves.setdefault(id(tensor), _leaf(tensor))
        try:
            stands: dict[int, Tensor] = {}
            for (store, key, _), (owner, leaf) in zip(replaced, self.free.items(), strict=True):
                # a buffer may be written into, as where a network counts its calls, and no leaf may
                stands[id(leaf)] = stands.get(id(leaf), leaf if isinstance(leaf, nn.Parameter) else leaf.clone())
                store[key] = stands[id(leaf)]
                self._owners[id(store[key])] = owner
            self._owners |= {
                id(p): (n, k) for n, m in layers.items() for k, p in m._parameters.items() if p is not None
            }
            self.weights = Weights(self._owners, self._last)
            alive = Alive(self.weights, self._product, self._contraction)
            with patched_forward(forwards), differentiated(), sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), alive:
                self.joined = alive.joined
                self.outputs = [t for t in example.outputs(self.model).values() if t.requires_grad]
        finally:
            for store, key, tensor in replaced:
                store[key] = tensor

    def normalises(self, layer: str) -> bool:
        """Whether the layer is a LayerNorm or the like over what it reads along."""
        return isinstance(self.model.get_submodule(layer), nn.LayerNorm | nn.RMSNorm)

    @property
    def returns_sums(self) -> bool:
        """Whether an output is a product of two activations, as similarities of embeddings are."""
        return any(output is product for output in self.outputs for product in self._sums)

    def _stand_in(self, name: str, module: nn.Module) -> Callable[..., Any]:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.couplings.ran[name] = None
            flow = Flow(name, module, self.couplings.nodes)
            handed_on: tuple[HandedOn, ...] = ()
            for tensor, dim, nodes in flow.reads(args, kwargs):
                if tensor.requires_grad:
                    handed_on = self._beside(tensor, dim) if leaves_places(module) else ()
                    self.reads.append(Tap(name, as_real(tensor.clone()), dim % tensor.ndim, nodes, handed_on))
            with torch._C.DisableTorchFunction(), torch.no_grad():
                true = original(*tree_map(_detached, args), **tree_map(_detached, kwargs))
            return flow.wrote(true, functools.partial(self._fresh, handed_on=handed_on))

        return forward

    def _product(self, outputs: Tensor, own: Operands) -> Tensor | None:
        """A function that multiplies by a parameter is a layer whose axes are the parameter's dimensions."""
        read, written = (self.weights.along(own.weight, dims[1]) for dims in (own.read, own.written))
        if read is None or written is None or read.owner != written.owner or read.dim == written.dim:
            return None
        module, key = read.owner
        nodes, couplings = self.couplings.nodes, self.couplings
        layer = self.model.get_submodule(module)
        axes = {along.dim: f"{key}/{along.dim}" for along in (read, written)}
        own_axes = [axis for name, axis in nodes.axes if name == module and "/" not in axis]
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)):  # which may never be called
            own_axes += ["out", "in"]
        for axis in own_axes:  # a layer's own weight has names for them already
            for tensor_axis in tensor_axes(layer, axis):
                if tensor_axis.owner is layer and tensor_axis.key == key and tensor_axis.runs == 1:
                    axes[tensor_axis.dim] = axis
        couplings.ran.setdefault(module)
        couplings.functions.add((module, axes[written.dim]))
        into = nodes.of(module, axes[read.dim], read.size)[read.entries.numpy()]
        out = nodes.of(module, axes[written.dim], written.size)[written.entries.numpy()]
        for nodes_of, dims in ((into, own.read), (out, own.written)):
            for beside in self.weights.times(own.weight, dims[1]):
                if beside.owner in self.free:
                    holder, other = beside.owner
                    places = nodes.of(holder, f"{other}/{beside.dim}", beside.size)[beside.entries.numpy()]
                    couplings.connect(nodes_of, places)
        if own.bias is not None and own.bias in self.weights and own.bias.ndim == 1:
            bias = self.weights.along(own.bias, 0)
            if bias is not None and bias.owner in self.free:
                holder, bias_key = bias.owner
                beside = nodes.of(holder, f"{bias_key}/{bias.dim}", bias.size)[bias.entries.numpy()]
                couplings.connect(out, beside)
        alike = own.x.ndim == outputs.ndim and (own.read[0] - own.written[0]) % own.x.ndim == 0
        handed_on = self._beside(own.x, own.read[0]) if alike else ()
        self.reads.append(Tap(module, as_real(own.x.clone()), own.read[0] % own.x.ndim, into, handed_on))
        return self._fresh(module, outputs.detach(), own.written[0], out, handed_on)

    def _beside(self, tensor: Tensor, read: int) -> tuple[HandedOn, ...]:
        """What lies along the dimensions that a layer does not read along."""
        if self.handed_on is None:
            return ()
        most = max((len(tap.nodes) for tap in self.written), default=0)
        others = [d for d in range(tensor.ndim) if d != read % tensor.ndim and 1 < tensor.shape[d] <= most]
        return tuple(units for d in others if (units := self.handed_on(tensor, d)) is not None)

    def _contraction(self, outputs: Tensor, factors: Factors, mean: bool) -> Tensor | None:
        """A sum over units, each of which is read in one place of all factors: what comes of it stays as wide."""
        if len(factors) > 1:
            self._sums.append(outputs)
        if self.single_units is None:
            return None
        units = [self.single_units(tensor, dim % tensor.ndim) for tensor, dim in factors]
        if not all(units):
            return None
        (first, columns), *others = [pair for pairs in units for pair in pairs or ()]
        at = dict(zip(columns.tolist(), first.tolist(), strict=True))
        for written, columns in others:
            there = np.isin(columns, list(at))
            self.couplings.connect(written[there], np.array([at[c] for c in columns[there].tolist()], np.int64))
            self.couplings.read.update(written.tolist())
        self.couplings.read.update(first.tolist())
        if mean:
            self.couplings.averaged.update(first.tolist())
        return (0.1 + 0.8 * torch.rand(outputs.shape, generator=self.random).to(outputs)).requires_grad_().clone()

    def _fresh(self, name: str, like: Tensor, dim: int, nodes: IntArray, handed_on: Sequence[HandedOn] = ()) -> Tensor:
        parts = as_real(like.detach())
        noise = torch.rand(parts.shape, generator=self.random).to(parts)
        leaf = (0.1 + 0.8 * noise).requires_grad_()
        self.written.append(Tap(name, leaf, dim % like.ndim, nodes))
        self.written += [Tap(name, leaf, units.dim, units.nodes) for units in handed_on]
        own = leaf.clone()  # which may be written into
        return torch.view_as_complex(own) if like.is_complex() else own

    def _straight_through(self, name: str, module: nn.Module) -> Callable[..., Any]:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            x = args[0] if args else next(iter(kwargs.values()), None)
            if not isinstance(x, Tensor) or not x.is_floating_point():
                return original(*args, **kwargs)
            mixed = mixed_entries(original, args, kwargs, x)
            if mixed is None:
                return original(*args, **kwargs)
            own = x.clone()
            self.normalised.append((name, own, mixed))
            with torch._C.DisableTorchFunction():  # as `Alive` hands on what is detached
                still = x.detach()
            y = original(still, *args[1:], **kwargs) if args else original(**{**kwargs, next(iter(kwargs)): still})
            return own + y - still  # the value of y; the derivative of the identity, and of its parameters

        return forward


def _leaf(tensor: Tensor) -> Tensor:
    own = tensor.detach().clone()
    return nn.Parameter(own) if isinstance(tensor, nn.Parameter) else own.requires_grad_()


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
