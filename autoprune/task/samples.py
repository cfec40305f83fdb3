"""Samples that are one tensor or several: how they are counted, indexed, cut, joined and moved, everywhere the same.

What a network reads or returns for N samples is a tensor [N, ...], or a tuple, list, mapping or dataclass of such,
nested as deep as it likes. Other values in it, such as None or a cache of keys and values, are passed through.
"""

import itertools
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from autoprune.machine_cache import release_freed_memory
from autoprune.task.lazy_tensor import LazyTensor

Samples: TypeAlias = Any  # a tensor [N, ...], or a tuple, list or mapping of such

PASS_BYTES = 2**23  # of inputs in one forward pass: activations are many times as large, 20 MB of an image of 224²
COPIED_BYTES = 2**28  # of one tensor, above which samples stay where they are and are read when they are used
LARGE_SAMPLE = 2**18  # bytes, an image of 148²: a pass takes so long then that releasing its memory takes no time
REAL_BYTES = 4  # of a number in a network: images of whole numbers in one byte become as many real ones
NOT_JUDGED = (
    "past_key_values",
    "hidden_states",
    "attentions",
)  # beside Hugging Face models' outputs


def leaves(samples: Samples) -> list[Tensor]:
    """All tensors, in order."""
    return list(_tensors(samples))


def mapped(samples: Samples, function: Callable[[Tensor], Any]) -> Samples:
    """The same structure with `function` of every tensor in the tensor's stead.

    Args:
        samples: A tensor [N, ...], or a tuple, list or mapping of such.
        function: What is made of every tensor.
    """
    match samples:
        case Tensor():
            return function(samples)
        case Mapping():
            values = {key: mapped(value, function) for key, value in samples.items()}
            return values if isinstance(samples, UserDict) or type(samples) is dict else type(samples)(**values)
        case tuple() if hasattr(samples, "_fields"):
            return type(samples)(*(mapped(part, function) for part in samples))
        case tuple() | list():
            return type(samples)(mapped(part, function) for part in samples)
    fields = _fields(samples)
    return replace(samples, **{key: mapped(value, function) for key, value in fields.items()}) if fields else samples


def as_tensors(samples: Samples) -> Samples:
    """NumPy's arrays in tuples, lists and mappings as tensors of the same numbers; tensors without their history.

    Large arrays that are mapped from files stay there, and are read when they are used.
    """
    match samples:
        case Tensor():
            return samples.detach() if samples.requires_grad else samples
        case np.memmap() if samples.dtype.kind in "biufc" and samples.ndim:
            lazy = LazyTensor.of(samples)
            return lazy if lazy.nbytes > COPIED_BYTES else lazy.load()
        case np.ndarray() if samples.dtype.kind in "biufc":
            return torch.from_numpy(np.ascontiguousarray(samples))
        case Mapping() if type(samples) is dict:
            return {key: as_tensors(value) for key, value in samples.items()}
        case tuple() | list() if type(samples) in (tuple, list):
            return type(samples)(map(as_tensors, samples))
    return samples


def number_of(samples: Samples) -> int:
    """N, the number of samples. Raises ValueError where its tensors differ in it."""
    sizes = {len(tensor) for tensor in leaves(samples)}
    if len(sizes) != 1:
        raise ValueError(f"all tensors of samples need one first axis, got lengths {sorted(sizes)}")
    return sizes.pop()


def rows(samples: Samples, which: slice | Tensor) -> Samples:
    """Some of the samples, in memory: a slice of them, or those at an index tensor.

    Args:
        samples: A tensor [N, ...], or a tuple, list or mapping of such.
        which: A slice of them, or an index tensor.
    """
    return mapped(samples, lambda tensor: loaded(tensor[which]))


def chosen(samples: Samples, which: slice | Tensor) -> Samples:
    """Some of the samples, of which no copy is made where that would be large: they are read when they are used.

    Args:
        samples: A tensor [N, ...], or a tuple, list or mapping of such.
        which: A slice of them, or an index tensor.
    """

    def of(tensor: Tensor) -> Tensor:
        copied = isinstance(which, Tensor) and which.numel() * tensor[:1].nbytes > COPIED_BYTES
        return (LazyTensor.of(tensor) if copied and tensor.device.type == "cpu" else tensor)[which]

    return mapped(samples, of)


def loaded(samples: Samples) -> Samples:
    """The same samples in memory, where some are read when they are used."""
    return mapped(samples, lambda tensor: tensor.load() if isinstance(tensor, LazyTensor) else tensor)


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in another type; a large one is converted row by row, when it is used.

    Args:
        tensor: [N, ...].
        dtype: What it is converted to.
    """
    if isinstance(tensor, LazyTensor):
        return tensor.converted(dtype)
    lazily = tensor.numel() * dtype.itemsize > COPIED_BYTES and tensor.device.type == "cpu" and tensor.dtype != dtype
    return LazyTensor.of(tensor).converted(dtype) if lazily else tensor.to(dtype)


def samples_within(samples: Samples, most: int, *, pass_bytes: int = PASS_BYTES) -> int:
    """Returns how many samples one forward pass takes: `most`, or fewer where they are large, but two at least.

    Args:
        samples: A tensor [N, ...], or a tuple, list or mapping of such.
        most: Of small samples, at least 1.
        pass_bytes: What the inputs of one pass may take.
    """
    one = sum(t.numel() // max(1, len(t)) * max(REAL_BYTES, t.itemsize) for t in leaves(samples))
    return min(max(1, most), max(2, pass_bytes // max(1, one)))


class Parts(Sequence[Any]):
    """Samples part by part, each of which is read when it is asked for."""

    def __init__(self, samples: Samples, stops: Sequence[int]) -> None:
        self._samples = samples
        self.slices = [slice(start, stop) for start, stop in itertools.pairwise(stops)]

    def __len__(self) -> int:
        return len(self.slices)

    def __getstate__(self) -> dict[str, Any]:  # for other processes: without what these samples were chosen from
        return vars(self) | {"_samples": mapped(self._samples, torch.clone)}

    def __getitem__(self, index: Any) -> Any:
        own = self.slices[index]
        return [rows(self._samples, part) for part in own] if isinstance(own, list) else rows(self._samples, own)


def cut(samples: Samples, size: int) -> Parts:
    """Parts of `size` samples each; the last one may be smaller. A single left-over sample joins the part before it.

    BatchNorm that normalises by its batch needs two samples at least.

    Args:
        samples: A tensor [N, ...], or a tuple, list or mapping of such.
        size: Samples of one part.
    """
    return Parts(samples, cuts(number_of(samples), size))


def cuts(number: int, size: int) -> list[int]:
    """Where `cut` cuts so many samples: 0, the parts' ends, and last the number itself.

    Args:
        number: How many samples there are.
        size: Samples of one part.
    """
    stops = [*range(size, number, size), number]
    if size > 1 and len(stops) > 1 and stops[-1] - stops[-2] == 1:
        del stops[-2]
    return [0, *stops]


def joined_samples(parts: Sequence[Samples]) -> Samples:
    """The parts one after the other; what is no tensor is the first part's."""
    columns = zip(*map(leaves, parts), strict=True)
    whole = iter([torch.cat(column) for column in columns])
    return mapped(parts[0], lambda _: next(whole))


def release_between(inputs: Samples) -> None:
    """What passes over samples as large as these have left free goes back to the system, where it is much.

    Args:
        inputs: Of the pass before, or the next one.
    """
    if any(tensor.nbytes > LARGE_SAMPLE * len(tensor) for tensor in leaves(inputs)):
        release_freed_memory()


def repeated(example: Samples, number: int) -> Samples:
    """The first sample so many times.

    Args:
        example: One sample [1, ...].
        number: How many samples there are.
    """
    return mapped(example, lambda tensor: tensor[:1].repeat(number, *[1] * (tensor.ndim - 1)))


def in_float32(samples: Samples) -> Samples:
    """Floats of any precision in float32; whole numbers stay."""
    return mapped(samples, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)


def read_as_float32(samples: Samples) -> Samples:
    """The same, of samples that are read; large ones are converted when they are used."""
    return mapped(samples, lambda tensor: converted(tensor, torch.float32) if tensor.is_floating_point() else tensor)


def images_last(samples: Samples) -> Samples:
    """Images [N, C, H, W] in the memory layout in which convolutions are faster on a CPU."""
    last = torch.channels_last
    return mapped(samples, lambda x: x.contiguous(memory_format=last) if x.ndim == 4 else x)


def channels_first(tensor: Tensor) -> Tensor:
    """A copy in the ordinary layout; `contiguous` leaves strides that mean the other one where a size is 1.

    Args:
        tensor: Of any shape.
    """
    return tensor.clone(memory_format=torch.contiguous_format)


def has_images(samples: Samples) -> bool:
    """One of the tensors is [N, C, H, W]."""
    return any(tensor.ndim == 4 for tensor in leaves(samples))


def first_tensor(samples: Samples) -> Tensor:
    """The first tensor. Raises TypeError where there is none."""
    tensors = leaves(samples)
    if not tensors:
        raise TypeError(f"the model returns {_described(samples)}; a tensor, or a container of some, is needed")
    return tensors[0]


def check_one_each(outputs: Mapping[str, Tensor], samples: int) -> None:
    """Raises ValueError where outputs have no entry for each sample on their first axis.

    Args:
        outputs: By name.
        samples: How many the network was given.
    """
    if all(tensor.ndim and len(tensor) == samples for tensor in outputs.values()):
        return
    shapes = {name: list(tensor.shape) for name, tensor in outputs.items()}
    way = "task.forward may choose among them"
    if "" in shapes and shapes[""][1:2] == [samples]:
        way = (
            "samples seem to stand on the second, so give Task forward=lambda network, x: network(x).transpose(0, 1), "
            "and a loss and metric that read such outputs"
        )
    raise ValueError(
        f"the network returns outputs of shape {shapes.get('', shapes)} for {samples} samples; every output needs one "
        f"entry for each sample on its first axis, and {way}"
    )


def named_outputs(outputs: Samples) -> dict[str, Tensor]:
    """The tensors of numbers that a network returns, by name: keys and positions, joined by dots; "" for a bare tensor.

    Complex numbers are pairs of real ones, on a last axis.
    Raises TypeError where there is none.

    >>> list(named_outputs({"logits": torch.zeros(1, 2), "boxes": (torch.zeros(1, 4), None)}))
    ['logits', 'boxes.0']
    """
    if isinstance(outputs, Tensor):
        if not (outputs.is_floating_point() or outputs.is_complex()):
            raise TypeError(
                f"the network returns {str(outputs.dtype).removeprefix('torch.')} numbers, as of an argmax, which tell "
                "nothing of how near another answer is; let it return, or task.forward, what it chooses by"
            )
        return {"": _as_real(outputs)}
    tensors = {
        name: _as_real(tensor)
        for tensor, name in zip(leaves(outputs), _names(outputs), strict=True)
        if (tensor.is_floating_point() or tensor.is_complex()) and name.partition(".")[0] not in NOT_JUDGED
    }
    if not tensors:
        raise TypeError(f"the model returns {_described(outputs)}; a tensor of floats, or a container, is needed")
    return tensors


def largest_difference(outputs: Samples, others: Samples) -> float:
    """The largest absolute difference between all outputs of two networks.

    Args:
        outputs: What the network returned.
        others: What is compared with it, of the same structure.
    """
    pairs = zip(named_outputs(outputs).values(), named_outputs(others).values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def paired_targets(names: list[str], targets: Samples) -> dict[str, Tensor | None]:
    """Output → its targets: those of its name, or at its position; a single tensor belongs to the first output.

    Targets of a nested output may be called by the last part of its name, where only one output ends so.

    Args:
        names: The outputs' names.
        targets: What outputs are compared with.
    """
    if isinstance(targets, Tensor):
        return dict.fromkeys(names) | {names[0]: targets}
    if isinstance(targets, Mapping):
        last = [name.rpartition(".")[2] for name in names]
        ends = {name: end if last.count(end) == 1 else name for name, end in zip(names, last, strict=True)}
        return {name: targets.get(name, targets.get(ends[name])) for name in names}
    if isinstance(targets, tuple | list) and len(targets) == len(names):
        return dict(zip(names, targets, strict=True))
    return dict.fromkeys(names)


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _tensors(samples: Samples) -> Iterator[Tensor]:
    match samples:
        case Tensor():
            yield samples
        case Mapping():
            for value in samples.values():
                yield from _tensors(value)
        case tuple() | list():
            for value in samples:
                yield from _tensors(value)
        case _:
            for value in _fields(samples).values():
                yield from _tensors(value)


def _fields(samples: Samples) -> dict[str, Any]:
    """Of a dataclass; empty for anything else."""
    if not is_dataclass(samples) or isinstance(samples, type):
        return {}
    return {field.name: getattr(samples, field.name) for field in fields(samples) if field.init}


def _names(samples: Samples, prefix: str = "") -> list[str]:
    match samples:
        case Tensor():
            return [prefix.removesuffix(".")]
        case Mapping():
            return [name for key, value in samples.items() for name in _names(value, f"{prefix}{key}.")]
        case tuple() | list():
            return [name for index, value in enumerate(samples) for name in _names(value, f"{prefix}{index}.")]
    return [name for key, value in _fields(samples).items() for name in _names(value, f"{prefix}{key}.")]


def _described(outputs: Samples) -> str:
    match outputs:
        case Mapping():
            return f"a mapping of {list(outputs)} without any"
        case tuple() | list():
            return f"a {type(outputs).__name__} of {[type(part).__name__ for part in outputs]}"
    return "None" if outputs is None else type(outputs).__name__
