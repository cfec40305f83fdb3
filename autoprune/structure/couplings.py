"""Which units of a network depend on which, found by experiment, without a rule for any operator.

The network runs once on an example. Every layer that has outputs of its own (a convolution, a linear layer, a norm) is
stood in for: it notes what it reads, and writes numbers that nothing is known of. So the network falls into segments
between what layers write and what the next layers read, whatever lies between: add, concatenate, chunk, shuffle,
reshape, attention. The derivative of every column that is read by every entry that is written is looked at by reverse
differentiation, which runs through one segment only and treats all that is written there at once:

- A reader's columns are weighted by 1 and by their number; the two gradients of an entry that is read in one column
  differ by that number. A third weighting by random numbers says which entries are read in several columns.
- For those, columns and entries are followed back and forth until they close: a head of an attention, or all channels
  that a map is multiplied into.

Parameters that belong to none of these layers (position embeddings, LayerScale) are found in the same way: all columns
are weighted by the number of their unit.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from autoprune.structure.examples import Example, with_gradients
from autoprune.structure.groups import Axis, IntArray
from autoprune.structure.layer_flow import Flow, Nodes, stands_for
from autoprune.structure.layer_types import ATTENTIONS, tensor_axes
from autoprune.structure.skipped_modules import patched_forward
from autoprune.structure.weighted_gradients import DIGIT, WeightedGradients, indices_of, is_alive, regular_blocks

SLACK = 100.0  # times more, for units that are read in one of few blocks
FEW = 0.2  # of a tensor's entries: so many may only have happened to cancel, and are looked at again
INPUT, OUTPUT_NODE = "<input>", "<output>"

Progress = Callable[[int, int], None]  # (done, of)


class Alive(TorchFunctionMode):
    """Activations that are flat somewhere hand on their inputs, so that no unit is silent.

    linear: (outputs, inputs, weight, bias) → what stands for the outputs of a linear layer that is a function, or None.
    """

    def __init__(self, linear: Callable[..., Tensor | None]) -> None:
        super().__init__()
        self.linear = linear

    FLAT = frozenset(
        {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh, F.hardtanh_,
         F.hardswish, F.hardsigmoid, F.threshold, torch.clamp, Tensor.clamp, torch.clamp_,
         Tensor.clamp_, torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_, torch.clamp_max, Tensor.clamp_max}
    )  # fmt: skip

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.FLAT and args and isinstance(args[0], Tensor) and args[0].requires_grad:
            return args[0] * 1
        if func is F.linear and torch.is_grad_enabled() and args[0].requires_grad:
            written = self.linear(func(*args, **(kwargs or {})), *args, **(kwargs or {}))
            if written is not None:
                return written
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """A tensor of which one dimension's indices are nodes: what a layer reads, or what it writes."""

    layer: str
    tensor: Tensor
    dim: int
    nodes: IntArray
    """[size of the dimension]"""


@dataclass(slots=True, eq=False)
class Couplings:
    """What is coupled in one network.

    edges: pairs of nodes that go together. hubs: sets of written and of read nodes, each written one of which is read
    in all of the others. pinned: node → why it can't go. normalisers: modules that normalise over several entries of
    what they read, with a tap of it.
    """

    nodes: Nodes
    edges: list[IntArray] = field(default_factory=list)
    hubs: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    pinned: dict[int, str] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)
    """Nodes of what is written and is read, or put out, somewhere."""
    ran: dict[str, None] = field(default_factory=dict)
    """Layers that were called, in order."""
    functions: set[tuple[str, Axis]] = field(default_factory=set)
    """Axes of parameters that a linear function writes by."""

    def connect(self, first: IntArray, second: IntArray) -> None:
        self.edges.append(np.stack(np.broadcast_arrays(first, second), axis=1).reshape(-1, 2))


class Laboratory:
    """One run of the network with stand-ins, and what can be asked of it."""

    def __init__(self, model: nn.Module, couplings: Couplings, *, deadline: float, progress: Progress | None) -> None:
        self.model, self.couplings = model, couplings
        self.written: list[Tap] = []
        self.reads: list[Tap] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.free: dict[tuple[str, str], Tensor] = {}
        self.normalised: list[tuple[str, Tensor]] = []
        self._owners: dict[int, tuple[str, str]] = {}
        self._deadline, self._progress = deadline, progress
        self._random = torch.Generator().manual_seed(0)

    def run(self, example: Example) -> None:
        """Runs the network on the example, every layer stood in for, parameters of no layer as leaves."""
        example, self.inputs = with_gradients(example)
        parts = {part for whole in self.model.modules() if isinstance(whole, ATTENTIONS) for part in whole.children()}
        layers = {n: m for n, m in self.model.named_modules() if stands_for(m) and m not in parts}
        forwards = {module: self._stand_in(name, module) for name, module in layers.items()}
        held = {id(t) for module in layers.values() for t in (*module.parameters(), *module.buffers())}
        replaced: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
        known: dict[int, Tensor] = {}
        for name, module in self.model.named_modules():
            if module not in forwards and _may_normalise(module):
                forwards[module] = self._straight_through(name, module)
            for store in (module._parameters, module._buffers):
                for key, tensor in store.items():
                    if tensor is not None and id(tensor) not in held and tensor.is_floating_point():
                        replaced.append((store, key, tensor))
                        self.free[name, key] = known.setdefault(id(tensor), _leaf(tensor))
        try:
            for (store, key, _), leaf in zip(replaced, self.free.values(), strict=True):
                store[key] = leaf
            self._owners = {id(leaf): name for name, leaf in self.free.items() if leaf.ndim <= 2}
            self._owners |= {
                id(p): (n, k) for n, m in layers.items() for k, p in m._parameters.items() if p is not None
            }
            with patched_forward(forwards), Alive(self._linear), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
                self.outputs = [t for t in example.outputs(self.model).values() if t.requires_grad]
        finally:
            for store, key, tensor in replaced:
                store[key] = tensor

    def _stand_in(self, name: str, module: nn.Module) -> Callable[..., Any]:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.couplings.ran[name] = None
            flow = Flow(name, module, self.couplings.nodes)
            for tensor, dim, nodes in flow.reads(args, kwargs):
                if tensor.requires_grad:
                    self.reads.append(Tap(name, tensor.clone(), dim % tensor.ndim, nodes))
            with torch.no_grad():
                true = original(*tree_map(_detached, args), **tree_map(_detached, kwargs))
            return flow.wrote(true, self._fresh)

        return forward

    def _linear(self, outputs: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """A function that multiplies by a parameter is a layer whose axes are the parameter's dimensions."""
        if id(weight) not in self._owners:
            return None
        module, key = self._owners[id(weight)]
        nodes, couplings = self.couplings.nodes, self.couplings
        layer = self.model.get_submodule(module)
        axes = [f"{key}/0", f"{key}/1"]
        for name, axis in list(nodes.axes):  # a layer's own weight has names for them already
            if name == module and "/" not in axis:
                for place in tensor_axes(layer, axis):
                    if place.owner is layer and place.key == key and place.runs == 1:
                        axes[place.dim] = axis
        couplings.ran.setdefault(module)
        couplings.functions.add((module, axes[0]))
        written = nodes.of(module, axes[0], weight.shape[0])
        if bias is not None and id(bias) in self._owners:
            owner, bias_key = self._owners[id(bias)]
            if (owner, bias_key) in self.free:
                couplings.connect(written, nodes.of(owner, f"{bias_key}/0", len(bias)))
        self.reads.append(Tap(module, x.clone(), x.ndim - 1, nodes.of(module, axes[1], weight.shape[1])))
        return self._fresh(module, outputs.detach(), -1, written)

    def _fresh(self, name: str, like: Tensor, dim: int, nodes: IntArray) -> Tensor:
        noise = torch.rand(like.shape, generator=self._random).to(like.device, like.dtype)
        leaf = (0.1 + 0.8 * noise).requires_grad_()
        self.written.append(Tap(name, leaf, dim % like.ndim, nodes))
        return leaf.clone()  # which may be written into

    def _straight_through(self, name: str, module: nn.Module) -> Callable[..., Any]:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            x = args[0] if args else next(iter(kwargs.values()), None)
            if not isinstance(x, Tensor) or not x.is_floating_point() or not _mixes(original, args, kwargs, x):
                return original(*args, **kwargs)
            own = x.clone()
            self.normalised.append((name, own))
            y = (
                original(x.detach(), *args[1:], **kwargs)
                if args
                else original(**{**kwargs, next(iter(kwargs)): x.detach()})
            )
            return own + y - own.detach()  # the value of y; the derivative of the identity, and of its parameters

        return forward

    def follow(self) -> None:
        """Finds out who reads what, for all readers."""
        for done, tap in enumerate(self.reads):
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"after {done} of {len(self.reads)} layers")
            if self._progress is not None:
                self._progress(done, len(self.reads))
            self._follow(tap)
        leaves = [tap.tensor for tap in self.written]
        for output in self.outputs:
            for tap, gradient in zip(self.written, self._gradients([output], leaves), strict=True):
                if gradient is not None:
                    nodes = tap.nodes[indices_of(is_alive(gradient), tap.dim)]
                    self.couplings.pinned |= dict.fromkeys(nodes.tolist(), OUTPUT_NODE)
                    self.couplings.read.update(nodes.tolist())

    def _follow(self, tap: Tap) -> None:
        sources = [source.tensor for source in self.written] + self.inputs
        several: list[tuple[Tap, Tensor]] = []
        columns = torch.arange(tap.tensor.shape[tap.dim])
        for source, weighted in zip(
            [*self.written, *[None] * len(self.inputs)], self._weighted([tap], [columns], sources), strict=True
        ):
            if weighted is None:
                continue
            if source is None:
                column, exact = weighted.decoded()
                reached = torch.unique(column[exact]).numpy()
                self.couplings.pinned |= dict.fromkeys(tap.nodes[reached].tolist(), INPUT)
                continue
            units, read, rest = weighted.pairs(source.dim)
            if rest is not None and int(rest.sum()) < FEW * rest.numel():
                (again,) = self._weighted([tap], [columns], [source.tensor])
                if again is not None:
                    more, more_read, left = again.pairs(source.dim)
                    units, read = np.append(units, more), np.append(read, more_read)
                    rest = None if left is None else rest & left
            self.couplings.connect(source.nodes[units], tap.nodes[read])
            self.couplings.read.update(source.nodes[units].tolist())
            if rest is not None and bool(rest.any()):
                several.append((source, rest))
        if several:
            self._close(tap, several)

    def _weighted(
        self, taps: Sequence[Tap], numbers: Sequence[Tensor], sources: Sequence[Tensor]
    ) -> list["WeightedGradients | None"]:
        """The sources' gradients where the taps' columns are weighted by their numbers; None: nothing is read."""
        size = 1 + max((int(own.max()) for own in numbers if len(own)), default=0)
        signatures = torch.rand(2, size, generator=self._random) + 0.5
        noise = [self._noise(tap.tensor) for tap in taps]
        weights = [
            [torch.ones(len(own)), own % DIGIT + 1.0, own // DIGIT + 1.0, *signatures[:, own]] for own in numbers
        ]
        ports = [tap.tensor for tap in taps]
        gradients = [
            self._gradients(ports, sources, [n * _along(t, w[k]) for t, n, w in zip(taps, noise, weights, strict=True)])
            for k in range(5)
        ]
        return [
            None if own[0] is None else WeightedGradients([g for g in own if g is not None], signatures)
            for own in zip(*gradients, strict=True)
        ]

    def _close(self, tap: Tap, several: list[tuple[Tap, Tensor]]) -> None:
        """Finds the sets of columns that are read together by entries that are read in several columns."""
        leaves, masks = [source.tensor for source, _ in several], [mask for _, mask in several]
        weights, noise = torch.ones_like(tap.tensor).requires_grad_(), self._noise(tap.tensor)
        graph: Sequence[Tensor | None] = torch.autograd.grad(
            tap.tensor, leaves, weights, create_graph=True, retain_graph=True, allow_unused=True
        )

        def columns_of(entries: list[Tensor]) -> Tensor:
            chosen = [
                (g, m) for g, m in zip(graph, entries, strict=True) if g is not None and g.requires_grad and m.any()
            ]
            if not chosen:
                return torch.zeros(tap.tensor.shape[tap.dim], dtype=torch.bool)
            (reached,) = torch.autograd.grad(
                [g for g, _ in chosen], weights, [self._noise(m) * m for _, m in chosen], retain_graph=True,
                allow_unused=True,
            )  # fmt: skip
            columns = torch.zeros(tap.tensor.shape[tap.dim], dtype=torch.bool)
            if reached is not None:
                columns[indices_of(is_alive(reached), tap.dim)] = True
            return columns

        def entries_of(columns: Tensor) -> list[Tensor]:
            gradients = self._gradients([tap.tensor], leaves, [noise * _along(tap, columns.float())])
            return [
                mask & is_alive(g) if g is not None else torch.zeros_like(mask)
                for g, mask in zip(gradients, masks, strict=True)
            ]

        def note(columns: Tensor, units: list[IntArray]) -> None:
            written = np.unique(np.concatenate([s.nodes[own] for (s, _), own in zip(several, units, strict=True)]))
            self.couplings.hubs.append((written, tap.nodes[columns.numpy()]))
            self.couplings.read.update(written.tolist())

        left = columns_of(masks)
        guessed = False
        while left.any():
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"while the units that {tap.layer} reads together were looked for")
            closed = torch.zeros_like(left)
            closed[left.nonzero()[0]] = True
            while True:
                entries = entries_of(closed)
                grown = closed | columns_of(entries)
                if bool((grown == closed).all()):
                    break
                closed = grown
            blocks = None if guessed else regular_blocks(closed)
            guessed = True
            if blocks is not None and self._in_blocks(tap, several, blocks, left, note):
                return
            left &= ~closed
            note(closed, [indices_of(m, s.dim) for (s, _), m in zip(several, entries, strict=True)])

    def _in_blocks(
        self,
        tap: Tap,
        several: list[tuple[Tap, Tensor]],
        blocks: Tensor,
        left: Tensor,
        note: Callable[[Tensor, list[IntArray]], None],
    ) -> bool:
        """Whether every unit is read in one block of columns only (the heads of an attention); if so, notes them."""
        numbers = []
        for (source, _), weighted in zip(
            several, self._weighted([tap], [blocks], [source.tensor for source, _ in several]), strict=True
        ):
            if weighted is None:
                return False
            units, block, rest = weighted.pairs(source.dim, slack=SLACK)
            if rest is not None:
                return False
            numbers.append((units, block))
        for block in torch.unique(blocks[left]).tolist():
            note((blocks == block) & left, [units[own == block] for units, own in numbers])
        return True

    def labels(self, tensors: Sequence[Tensor], label: IntArray) -> list[tuple[IntArray, Tensor] | None]:
        """For tensors of the run: which label each of their entries is read by alone, and whether it is read.

        label: [nodes] ≥ 0. Returns for each tensor its labels (−1 where several read it, or none) and whether each
        entry is read at all; None where nothing of it is.
        """
        numbers = [torch.from_numpy(label[tap.nodes]) for tap in self.reads]
        found: list[tuple[IntArray, Tensor] | None] = []
        for weighted in self._weighted(self.reads, numbers, tensors):
            if weighted is None or not (alive := is_alive(weighted.one)).any():
                found.append(None)
                continue
            number, exact = weighted.decoded()
            found.append((torch.where(exact, number, -1).cpu().numpy(), alive))
        return found

    def _gradients(
        self, outputs: Sequence[Tensor], sources: Sequence[Tensor], weights: Sequence[Tensor] | None = None
    ) -> list[Tensor | None]:
        weights = [self._noise(output) for output in outputs] if weights is None else weights
        if not outputs or not sources:
            return [None] * len(sources)
        return list(torch.autograd.grad(outputs, sources, weights, retain_graph=True, allow_unused=True))

    def _noise(self, like: Tensor) -> Tensor:
        return (torch.rand(like.shape, generator=self._random) + 0.5).to(like.device)


def _may_normalise(module: nn.Module) -> bool:
    """Whether the module is one piece and, by its name or its parameters, might be a normalisation."""
    if any(module.children()):
        return False
    own = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
    vectors = [t for t in own if t.numel() > 1]
    named = re.search("norm", type(module).__name__, re.IGNORECASE) is not None
    return named or (bool(vectors) and all(t.numel() == max(t.shape) for t in vectors))


def _mixes(forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor) -> bool:
    """Whether the answer has the shape of x, and one entry of it reads several of x."""
    probe = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device, x.dtype).requires_grad_()
    y = _given(forward, args, kwargs, probe)
    if not isinstance(y, Tensor) or y.shape != x.shape or not y.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(y.flatten()[0], probe)
    return int((gradient != 0).sum()) > 1


def _given(forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], first: Tensor) -> Any:
    """What is returned with another first argument."""
    return forward(first, *args[1:], **kwargs) if args else forward(**{**kwargs, next(iter(kwargs)): first})


def _leaf(tensor: Tensor) -> Tensor:
    own = tensor.detach().clone()
    return nn.Parameter(own) if isinstance(tensor, nn.Parameter) else own.requires_grad_()


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _along(tap: Tap, weights: Tensor) -> Tensor:
    """Weights [size of the tap's dimension] for all of its tensor."""
    shape = [-1 if dim == tap.dim else 1 for dim in range(tap.tensor.ndim)]
    return weights.to(tap.tensor.device, tap.tensor.dtype).view(shape).expand(tap.tensor.shape)
