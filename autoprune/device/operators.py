"""What a forward pass computes: the operators that read activations, in order, and who reads whose outputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.structure.edit import evaluating
from autoprune.task.task import Forward, plain_forward

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of torch's ATen as it ran: `aten.convolution.default`.

    sources: the steps whose outputs it reads, −1 for the network's input; inputs: these tensors' shapes as it reads
    them. weights: the shapes of the parameters and buffers that it reads, () where an argument is None.
    arguments: everything else, as hashable values.
    """

    operator: str
    sources: tuple[int, ...]
    inputs: tuple[Shape, ...]
    weights: tuple[Shape, ...]
    arguments: tuple[Any, ...]
    output: Shape


def record(network: nn.Module, example_input: Tensor, *, forward: Forward = plain_forward) -> tuple[Step, ...]:
    """The steps of one forward pass in eval mode. Views are no steps: who reads one reads what it is a view of."""
    recorder = _Recorder(network, example_input)
    with evaluating(network), torch.no_grad(), recorder:
        forward(network, example_input)
    return tuple(recorder.steps)


class _Recorder(TorchDispatchMode):
    def __init__(self, network: nn.Module, example_input: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._constants = {id(t) for t in (*network.parameters(), *network.buffers())}
        self._writers = {id(example_input): -1}
        self._alive: list[Any] = [example_input]  # an id is a tensor's own only as long as the tensor lives

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:  # fmt: skip  # noqa: E501
        answer = function(*args, **(kwargs or {}))
        given = list(_leaves([*args, *(kwargs or {}).values()]))
        read = [t for t in given if isinstance(t, Tensor) and id(t) in self._writers]
        first = answer if isinstance(answer, Tensor) else answer[0] if isinstance(answer, tuple | list) else None
        if not isinstance(first, Tensor):
            return answer
        self._alive.append(answer)
        if read and not _is_view(function):
            self.steps.append(self._step(function, given, read, first))
            self._writers |= {id(t): len(self.steps) - 1 for t in _leaves([answer]) if isinstance(t, Tensor)}
        elif read:
            self._writers[id(first)] = self._writers[id(read[0])]
        elif any(id(t) in self._constants for t in given):  # what is made of weights alone is a weight
            self._constants.add(id(first))
        return answer

    def _step(self, function: Any, given: Sequence[Any], read: Sequence[Tensor], output: Tensor) -> Step:
        others = [t for t in given if not (isinstance(t, Tensor) and id(t) in self._writers)]
        return Step(
            str(function),
            tuple(self._writers[id(t)] for t in read),
            tuple(tuple(t.shape) for t in read),
            tuple(tuple(t.shape) for t in others if isinstance(t, Tensor) and id(t) in self._constants),
            tuple(t for t in others if not isinstance(t, Tensor)),
            tuple(output.shape),
        )


def _is_view(function: Any) -> bool:
    returns = function._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _leaves(values: Sequence[Any]) -> Iterator[Any]:
    """Values, and those in lists of tensors; a list of numbers is one value, a tuple."""
    for value in values:
        if isinstance(value, tuple | list) and any(isinstance(entry, Tensor) for entry in value):
            yield from _leaves(value)
        else:
            yield tuple(value) if isinstance(value, list) else value
