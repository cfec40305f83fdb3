"""Which tensors a forward pass holds at the same time, read off one run of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoprune.structure.edit import evaluating

Forward = Callable[[nn.Module, Tensor], Any]
# element-wise, beside those that PyTorch tags so
IN_PLACE = (
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_prelu_kernel",
    "native_dropout",
)


@dataclass(slots=True)
class Buffer:
    """Memory that a tensor takes, or several of one size one after the other, from operation `first` to `last`.

    Operation 0 writes the input, and what is held to the end has the number of operations as `last`.
    """

    elements: int
    first: int
    last: int


@torch.no_grad()
def buffers_of(model: nn.Module, inputs: Tensor, *, forward: Forward) -> list[Buffer]:
    """Of the activations of one forward pass in eval mode, in the order in which they are first written.

    A tensor is held from the operation that writes it to the last one that reads it or a view of it; the outputs to the
    end. An element-wise operation (an activation, an addition, BatchNorm) writes over an input of its size that is not
    read afterwards. Weights, what is made of weights alone, whole numbers, and what nobody reads take none.
    """
    with evaluating(model), _Recorder(inputs) as recorder:
        outputs = forward(model, inputs)
    return _planned(recorder, [_storage(tensor) for tensor in tree_leaves(outputs) if isinstance(tensor, Tensor)])


class _Recorder(TorchDispatchMode):
    """Every operation's storages: those that it reads, and those that it writes anew."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: list[Tensor] = [inputs]  # a storage that is freed could come back as another one
        self.elements = {_storage(inputs): inputs.numel()}
        self.operations: list[tuple[set[int], list[int], bool]] = [(set(), [_storage(inputs)], False)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        given = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        read = given & self.elements.keys()
        made = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point() and x.numel()]
        new = [x for x in made if read and _storage(x) not in self.elements.keys() | given]
        self.kept += made
        self.elements |= {_storage(x): x.numel() for x in new}
        in_place = torch.Tag.pointwise in func.tags or func.overloadpacket.__name__ in IN_PLACE
        self.operations.append((read, [_storage(x) for x in new], in_place))
        return outputs


def _planned(recorder: _Recorder, outputs: list[int]) -> list[Buffer]:
    last = {storage: place for place, (read, *_) in enumerate(recorder.operations) for storage in read}
    last |= dict.fromkeys(outputs, len(recorder.operations))
    buffers: dict[int, Buffer] = {}  # storage → where it is
    for place, (read, written, in_place) in enumerate(recorder.operations):
        for storage in written:
            if storage not in last:
                continue
            elements = recorder.elements[storage]
            ending = [s for s in read if s in buffers and last[s] == place and buffers[s].last == place]
            over = [s for s in sorted(ending, key=lambda s: buffers[s].first) if buffers[s].elements == elements]
            if in_place and over:
                buffers[storage] = buffers[over[0]]
                buffers[storage].last = last[storage]
            else:
                buffers[storage] = Buffer(elements, place, last[storage])
    return list({id(buffer): buffer for buffer in buffers.values()}.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
