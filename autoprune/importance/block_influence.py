"""How much a part of a network changes the stream that passes it (ShortGPT's block influence; arXiv 2403.03853)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.importance.layer_inputs import batches
from autoprune.structure.edit import evaluating
from autoprune.structure.groups import Group
from autoprune.task.task import Forward, Role, first_outputs

BATCH = 16  # samples


@torch.no_grad()
def block_influence(model: nn.Module, groups: Sequence[Group], role: Role, *, forward: Forward) -> dict[str, Tensor]:
    """Group with skips → [1], in [0, 2]: 1 − the mean cosine between the stream before and after what is skipped.

    The mean is over samples and positions. What is read of a group is what its first skipped module reads; what comes
    after it is what its last one returns, added to that if zeros are to stand in for it, or for all that it reads.

    Args:
        model: The dense network, in eval mode.
        groups: Those with skips are scored.
        role: The samples that are read.
        forward: (network, inputs) → outputs: how the network is called.
    """
    streams = [_Stream(group) for group in groups if group.skips]
    if not streams:
        return {}
    with evaluating(model), _watched(model, streams):
        for inputs, _ in batches(role, BATCH):
            forward(model, inputs)
    return {stream.group.name: stream.influence() for stream in streams}


def given_order(group: Group) -> Tensor:
    """[units] from 1 down to above 0: a pattern's units are in order of importance already."""
    return torch.arange(group.units, 0, -1, dtype=torch.float32) / group.units


class _Stream:
    """The stream around one group's modules."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.before: Tensor | None = None
        self.sublayer: Tensor | None = None  # what zeros would stand in for
        self.total, self.positions = 0.0, 0

    def enter(self, module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        self.before = arguments[0] if arguments else next(iter(named.values()))

    def replaced(self, module: nn.Module, arguments: tuple[Tensor, ...], output: object) -> None:
        self.sublayer = first_outputs(output)

    def leave(self, module: nn.Module, arguments: tuple[Tensor, ...], output: object) -> None:
        if self.before is None:
            raise ValueError(
                f"{self.group.skips[-1].module} ran before {self.group.skips[0].module}; the skips of group "
                f"{self.group.name!r} must stand in order of execution"
            )
        after = first_outputs(output)
        # A norm that reads nothing but the sublayer is part of what is added; one that reads the sum makes the stream.
        adds = after is self.sublayer or (arguments and arguments[0] is self.sublayer)
        cosines = F.cosine_similarity(self.before, self.before + after if adds else after, dim=-1)
        self.total += cosines.double().sum().item()
        self.positions += cosines.numel()
        self.before = self.sublayer = None

    def influence(self) -> Tensor:
        if not self.positions and self.group.granularity == "expert":
            return torch.zeros(1)  # nothing was routed to it
        if not self.positions:
            raise ValueError(f"{self.group.skips[-1].module} of group {self.group.name!r} never ran")
        return torch.tensor([1 - self.total / self.positions]).clamp(min=0)  # below it by rounding only


@contextmanager
def _watched(model: nn.Module, streams: list[_Stream]) -> Iterator[None]:
    with ExitStack() as hooks:
        for stream in streams:
            first, last = (model.get_submodule(stream.group.skips[end].module) for end in (0, -1))
            hooks.enter_context(first.register_forward_pre_hook(stream.enter, with_kwargs=True))
            for skip in stream.group.skips:
                if skip.returns.startswith("zeros"):
                    hooks.enter_context(model.get_submodule(skip.module).register_forward_hook(stream.replaced))
            hooks.enter_context(last.register_forward_hook(stream.leave))
        yield
