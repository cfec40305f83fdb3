"""One forward pass as it ran: its operators, who reads whose outputs, and the products of matrices among them."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.structure.edit import evaluating
from autoprune.structure.experts import countable_experts
from autoprune.task.samples import Samples, leaves

Forward = Callable[[nn.Module, Any], Any]
Shape = tuple[int, ...]

BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")
ACTIVATIONS = ("relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu")
CHOOSING = ("index", "index_select", "gather")  # parts of a tensor, by indices that may be computed
# Element-wise operators, beside those that PyTorch tags so: their output may be written over an input.
ELEMENT_WISE = (*BATCH_NORMS, "_batch_norm_no_update", "_prelu_kernel", "native_dropout")
# Beginnings of the names of ATen's operators that multiply and accumulate, and for which there is no rule here.
UNCOUNTED = ("linalg_", "_linalg_", "_fft_", "cholesky", "_native_multi_head", "_transformer_encoder_layer")
REDUCTIONS = ("linalg_vector_norm",)  # which are no products, as sums of squares in a norm are none


@dataclass(frozen=True, slots=True)
class Step:
    """An operator of torch's ATen that reads activations. Views are no steps: who reads one reads its base."""

    operator: str
    """Its full name, such as `aten.convolution.default`."""
    sources: tuple[int, ...]
    """The steps whose outputs it reads, −1 for the network's input."""
    inputs: tuple[Shape, ...]
    """The shapes of these tensors, as it reads them."""
    weights: tuple[Shape, ...]
    """The shapes of the parameters and buffers that it reads, and of what is computed from these alone."""
    arguments: tuple[Any, ...]
    """Everything else that it is called with, as hashable values."""
    output: Shape
    """The shape of its output, or of the first of several."""
    read: frozenset[int]
    """The storages of the activations that it reads."""
    written: Mapping[int, int]
    """Storages that it writes anew, each with its number of elements; those of whole numbers are left out."""
    element_wise: bool
    """Whether its output may be written over an input of the same size."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product of two tensors: a matrix product, a convolution, an attention's scores or mixing, a recurrence."""

    module: str
    """The innermost module that runs it, by its qualified name."""
    operator: str
    """The operator's name, such as `convolution`."""
    sizes: Shape
    """Its multiply–accumulates are the product of these numbers."""
    output: Shape
    """The shape of what the operator writes; empty for all but the first of several products of one operator."""
    weights: tuple[str, ...]
    """The names of the parameters that it reads, directly or computed from."""


@dataclass(slots=True)
class Recording:
    """What one forward pass computes, in order of execution."""

    inputs: Mapping[int, int]
    """The storages of the network's inputs, each with its number of elements."""
    steps: list[Step] = field(default_factory=list)
    """Every operator, with the storages that it reads and writes."""
    products: list[Product] = field(default_factory=list)
    """Every product of matrices or kernels."""
    uncounted: Counter[str] = field(default_factory=Counter)
    """Operators that multiply and accumulate in a way that is not known here, with how often they ran."""
    outputs: frozenset[int] = frozenset()
    """The storages of the network's outputs."""


@torch.no_grad()
def record(model: nn.Module, inputs: Samples, *, forward: Forward) -> Recording:
    """The recording of one forward pass in eval mode; the model is as it was.

    Args:
        model: The network, on any device; on the meta device nothing is computed.
        inputs: What `forward` calls it with.
        forward: (network, inputs) → outputs.
    """
    recorder = _Recorder(model, inputs)
    with ExitStack() as stack:
        plainly = evaluating(model), countable_experts(model)
        for context in (*plainly, _inside(model, recorder.modules), _MetaAttention(recorder), recorder):
            stack.enter_context(context)
        outputs = forward(model, inputs)
    recorder.recording.outputs = frozenset(map(_storage, leaves(outputs)))
    return recorder.recording


class _Recorder(TorchDispatchMode):
    def __init__(self, model: nn.Module, inputs: Samples) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules: list[str] = []
        self.recording = Recording({_storage(tensor): tensor.numel() for tensor in leaves(inputs)})
        self._writers = dict.fromkeys(self.recording.inputs, -1)  # storage → the step that wrote it
        # storage → the parameters that it is computed from
        self._constants = {_storage(t): dict[str, None]() for t in model.buffers()}
        self._constants |= {_storage(t): {name: None} for name, t in model.named_parameters()}
        self._alive: list[Any] = [inputs]  # a storage that is freed could come back as another one

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = _traced(func, args)
        if outputs is None:
            outputs = func(*args, **(kwargs or {}))
        given = list(_leaves([*args, *(kwargs or {}).values()]))
        made = leaves(outputs)
        if not made:
            return outputs
        self._alive.append(outputs)
        storages = {_storage(t) for t in given if isinstance(t, Tensor)}
        self.multiply(_name(func), args, made[0])
        counted = _name(func) in REDUCTIONS or not _name(func).startswith(UNCOUNTED)
        if func.namespace not in ("aten", "prims") or not counted:
            self.recording.uncounted[f"{func.namespace}.{_name(func)}"] += 1
        if _name(func) in CHOOSING and _storage(args[0]) in self._constants:  # what is computed is a part of the weight
            self._constants |= {_storage(t): self._constants[_storage(args[0])] for t in made}
        if storages & self._writers.keys():
            if func._schema.is_mutable or _storage(made[0]) not in storages:  # not a view
                self.recording.steps.append(self._step(func, given, made, storages))
                self._writers |= {_storage(t): len(self.recording.steps) - 1 for t in made}
        elif names := [self._constants[storage] for storage in storages & self._constants.keys()]:
            origin = {name: None for of in names for name in of}
            self._constants |= {_storage(t): origin for t in made if _storage(t) not in storages}
        return outputs

    def multiply(self, operator: str, args: Sequence[Any], output: Tensor) -> None:
        """Records the products of one call."""
        tensors = [t for t in _leaves(args) if isinstance(t, Tensor)]
        weights = tuple(name for t in tensors for name in self._constants.get(_storage(t), ()))
        module = self.modules[-1] if self.modules else ""
        for number, sizes in enumerate(product_sizes(operator, args, output)):
            written = tuple(output.shape) if number == 0 else ()
            self.recording.products.append(Product(module, operator, sizes, written, weights))

    def _step(self, func: Any, given: Sequence[Any], made: Sequence[Tensor], storages: set[int]) -> Step:
        read = [t for t in given if isinstance(t, Tensor) and _storage(t) in self._writers]
        weights = [t for t in given if isinstance(t, Tensor) and _storage(t) in self._constants]
        new = [t for t in made if t.is_floating_point() and t.numel() and _storage(t) not in storages]
        return Step(
            str(func),
            sources=tuple(self._writers[_storage(t)] for t in read),
            inputs=tuple(tuple(t.shape) for t in read),
            weights=tuple(tuple(t.shape) for t in weights),
            arguments=tuple(leaf for leaf in given if not isinstance(leaf, Tensor)),
            output=tuple(made[0].shape),
            read=frozenset(_storage(t) for t in read),
            written={_storage(t): t.numel() for t in new},
            element_wise=torch.Tag.pointwise in func.tags or _name(func) in ELEMENT_WISE,
        )


class _MetaAttention(TorchFunctionMode):
    """Records attentions on the meta device, where the shape says all and tracing their kernels takes long."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is F.scaled_dot_product_attention:
            tensors = [*args, *(named[key] for key in ("query", "key", "value") if key in named)][:3]
            if tensors[0].is_meta:
                output = tensors[0].new_empty((*tensors[0].shape[:-1], tensors[2].shape[-1]))
                self._recorder.multiply(func.__name__, tensors, output)
                return output
        return func(*args, **named)


def product_sizes(operator: str, args: Sequence[Any], output: Tensor) -> list[Shape]:
    """The sizes of the products that an operator computes; their product is its multiply–accumulates.

    Args:
        operator: The name of an operator of ATen, without namespace and overload.
        args: What it is called with.
        output: What it returns, or the first of several tensors.
    """
    match operator:
        case "mm" | "bmm" | "mv" | "dot" | "vdot":
            return [_matmul(args[0], args[1])]
        case "addmm" | "baddbmm" | "addmv" | "addbmm" | "_addmm_activation":
            return [_matmul(args[1], args[2])]
        case "convolution" | "_convolution" | "convolution_overrideable":
            weight, slid = args[1], args[0] if args[6] else output  # a transposed one goes over its input
            return [(slid.numel() // slid.shape[1], *weight.shape[:2], math.prod(weight.shape[2:]))]
        case name if "scaled_dot_product" in name:
            query, key, value = args[:3]
            rows, keys = math.prod(query.shape[:-1]), key.shape[-2]
            return [(rows, query.shape[-1], keys), (rows, keys, value.shape[-1])]
        case "mkldnn_rnn_layer" | "_cudnn_rnn" | "miopen_rnn":
            matrices = [t for t in _leaves(args[1:5]) if isinstance(t, Tensor) and t.ndim == 2]
            return [(args[0].numel() // args[0].shape[-1], *matrix.shape) for matrix in matrices]
        case "_cdist_forward":
            return [(output.numel(), args[0].shape[-1])]
        case "_trilinear":
            return [(output.numel(), args[0].shape[-1], args[2].shape[-1])]
    return []


def _traced(func: Any, args: Sequence[Any]) -> Any:
    """What an element-wise operator returns on the meta device, where computing its shape takes long; else None."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_meta:
        return None
    if _name(func) in BATCH_NORMS:
        return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
    return torch.empty_like(args[0]) if _name(func) in ACTIVATIONS else None


def _matmul(first: Tensor, second: Tensor) -> Shape:
    """Rows of all matrices, what is summed over, and columns; a vector is a matrix of one row or column."""
    columns = second.shape[-1] if second.ndim > 1 else 1
    return math.prod(first.shape[:-1]), first.shape[-1], columns


@contextmanager
def _inside(model: nn.Module, names: list[str]) -> Iterator[None]:
    """The names of the modules that are running are in `names`, the innermost one last."""

    def leave(*_: object) -> None:
        names.pop()

    def entering(name: str) -> Callable[..., None]:
        return lambda *_: names.append(name)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(entering(name)))
            hooks.enter_context(module.register_forward_hook(leave, always_call=True))
        yield


def _name(func: Any) -> str:
    return str(getattr(func, "overloadpacket", func).__name__)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _leaves(values: Sequence[Any]) -> Iterator[Any]:
    """Values, and those in lists of tensors; a list of numbers is one value, a tuple."""
    for value in values:
        if isinstance(value, tuple | list) and any(isinstance(entry, Tensor) for entry in value):
            yield from _leaves(value)
        else:
            yield tuple(value) if isinstance(value, list) else value
