"""What runs between a transformer's blocks, in the student as it was in the teacher (DistilBERT, arXiv 1910.01108)."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.task import first_outputs

Places = Mapping[str, Tensor]  # block → hidden states [N, positions, width]
LAST = "the last block"


def blocks_of(network: nn.Module) -> tuple[str, ...]:
    """The blocks of a transformer by name, in order, those that are passed over included.

    Raises ValueError for a network that keeps no blocks in an `nn.ModuleList`.
    """
    lists = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.ModuleList) and len(part)]
    if not lists:
        raise ValueError(
            f"a {type(network).__name__} has no blocks (an nn.ModuleList of them), so there are no hidden states to "
            "learn from and no adapters to fit; set recover.hidden_states=0 or choose recover=distill"
        )
    name, longest = max(lists, key=lambda named: len(named[1]))
    return tuple(f"{name}.{i}" if name else str(i) for i in range(len(longest)))


def kept_blocks(network: nn.Module) -> tuple[str, ...]:
    """The blocks that still compute something. Raises ValueError where there are none."""
    kept = tuple(name for name in blocks_of(network) if any(True for _ in network.get_submodule(name).parameters()))
    if not kept:
        raise ValueError("no block of the network is left that could learn; keep one, or choose recover=none")
    return kept


@contextmanager
def hearing(network: nn.Module, *, before: tuple[str, ...], after: str) -> Iterator[dict[str, Tensor]]:
    """Holds, after every forward pass, what the blocks `before` have read and what the block `after` has left.

    Where blocks are passed over, the next one reads what the last one left, so both networks are heard at the same
    places: a kept block is to be given what it was trained on.

    Args:
        network: The pruned network, which stays as it is.
        before: Modules whose inputs are read.
        after: Modules whose outputs are read.
    """
    heard: dict[str, Tensor] = {}

    def read(name: str, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        heard[name] = arguments[0] if arguments else named["hidden_states"]

    def left(_: nn.Module, arguments: tuple[Any, ...], outputs: object) -> None:
        heard[LAST] = first_outputs(outputs)

    with ExitStack() as hooks:
        for name in before:
            hooks.enter_context(
                network.get_submodule(name).register_forward_pre_hook(partial(read, name), with_kwargs=True)
            )
        hooks.enter_context(network.get_submodule(after).register_forward_hook(left))
        yield heard


def hidden_loss(student: Places, teacher: Places) -> Tensor:
    """1 − cosine, in [0, 2]: mean over samples and positions of each place, then over places.

    A cosine, as a stream's scale differs by orders of magnitude from block to block.

    Args:
        student: Hidden states of the network that learns.
        teacher: Hidden states of the dense network.
    """
    if student.keys() != teacher.keys():
        raise ValueError(f"the student was heard at {sorted(student)}, the teacher at {sorted(teacher)}")
    return torch.stack(
        [1 - F.cosine_similarity(student[at].float(), teacher[at].float(), dim=-1).mean() for at in sorted(student)]
    ).mean()
