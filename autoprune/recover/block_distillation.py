"""Block-local distillation: each block learns what the dense one does in its place, then all of them the outputs."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.ranges import Count, Fraction, Natural, NonNegative, Positive
from autoprune.recover.distillation import asking
from autoprune.recover.hidden_states import LAST, Places, blocks_of, hearing, kept_blocks
from autoprune.recover.learning import Learning, learn
from autoprune.recover.recovery import OnStep
from autoprune.task.copies import copied
from autoprune.task.outputs import TINY
from autoprune.task.samples import Samples, rows
from autoprune.task.task import Forward, Task
from autoprune.task.training import runs_in_bf16

EXACT = 1e-6  # a block whose error is below does what the dense one does, and has nothing to learn
LEAST_ENERGY = (
    1e-3  # of the mean over positions: where the dense span adds next to nothing, errors are relative to this
)


@dataclass(frozen=True, slots=True)
class Span:
    """A block that is left, which is to do what the dense network does from `begins` to `ends`.

    Blocks that are gone belong to the one that is left before them; those at the very beginning to the first one.
    """

    block: str
    """The name of the block that is left."""
    begins: str
    """The block before which the dense network's stream is read."""
    ends: str
    """The block before which it is to arrive, or `recover.hidden_states.LAST`."""


def spans(network: nn.Module) -> tuple[Span, ...]:
    """What each block that is left has to do, in order; together they are the whole stack of the dense network.

    Args:
        network: The pruned network.

    Raises:
        ValueError: It has no blocks, or none of them is left.
    """
    kept = kept_blocks(network)
    begins, ends = (blocks_of(network)[0], *kept[1:]), (*kept[1:], LAST)
    return tuple(Span(*each) for each in zip(kept, begins, ends, strict=True))


def block_errors(of: tuple[Span, ...], student: Places, dense: Places) -> Tensor:
    """The share of what the dense network adds to the stream that each block misses [spans]; 0 is all of it done.

    The squared length of the error ÷ that of what is added, position by position: a few positions of a stream are
    orders of magnitude longer than all others, and would be all that counts.

    Args:
        of: The blocks.
        student: Place → the stream that the pruned network's block leaves there, given the dense network's stream.
        dense: Place → the dense network's stream.
    """
    errors = []
    for span in of:
        arrives, before = dense[span.ends].float(), dense[span.begins].float()
        energy = (arrives - before).square().sum(-1)
        missed = (student[span.ends].float() - arrives).square().sum(-1)
        errors.append((missed / energy.clamp(min=max(LEAST_ENERGY * float(energy.mean()), TINY))).mean())
    return torch.stack(errors)


@dataclass(frozen=True, slots=True)
class BlockLocal:
    """A network whose blocks all read the dense network's streams, so that each is right or wrong by itself."""

    of: tuple[Span, ...]
    """Its blocks."""
    forward: Forward
    """(network, inputs) → outputs; the dense network is called first."""
    student: Places
    """What its blocks left in the last call."""
    dense: Places
    """What the dense network had there."""

    @classmethod
    @contextmanager
    def opened(cls, network: nn.Module, task: Task, *, teacher: nn.Module, bf16: bool) -> "Iterator[BlockLocal]":
        """The network is fed by its teacher while the context is open.

        Args:
            network: The pruned network.
            task: Says how networks are called.
            teacher: The dense network, in eval mode.
            bf16: Whether it is called in bfloat16.
        """
        of, ask = spans(network), asking(teacher, forward=task.forward, images=False, bf16=bf16)
        blocks = blocks_of(teacher)

        def forward(called: nn.Module, inputs: Samples) -> Samples:
            ask(inputs, None)
            return task.forward(called, inputs)

        with (
            hearing(teacher, before=(blocks[0], *(span.begins for span in of[1:])), after=blocks[-1]) as dense,
            hearing(network, before=tuple(span.ends for span in of[:-1]), after=of[-1].block) as student,
            _fed(network, {span.block: span.begins for span in of}, dense),  # after `hearing`, which hears what came
        ):
            yield cls(of, forward, student, dense)

    @property
    def errors(self) -> Tensor:
        """Of each block in the last call [blocks], with gradients where it had them."""
        return block_errors(self.of, self.student, self.dense)


def distill_blocks(  # noqa: PLR0913 - a Recovery and its settings
    network: nn.Module,
    task: Task,
    *,
    teacher: nn.Module | None,
    block_steps: Natural,
    steps: Natural,
    batch_size: Count,
    block_learning_rate: Positive,
    learning_rate: Positive,
    weight_decay: NonNegative,
    distillation: Fraction,
    temperature: Positive,
    bf16: bool | Literal["auto"],
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> nn.Module:
    """A copy of `network` in eval mode whose blocks do what the dense network's did, as far as they have learnt it.

    First every block that is left reads the dense network's stream and learns what comes of it up to the next block
    that is left (the blockwise local distillation of Puzzle, arXiv 2411.19146). All blocks learn from one pass, as no
    gradient leaves a block; those that are as in the dense network are left alone. Then all weights learn from the
    outputs, by `recover.learning.Learning`. Both by AdamW, from the task's train role and nothing else.

    Args:
        network: The pruned network, which stays as it is.
        task: The trained network, its data and its metric.
        teacher: The dense network to learn from.
        block_steps: Of the blocks' part; 0 leaves it out.
        steps: Of the outputs' part; 0 leaves it out.
        batch_size: Samples in one forward pass, at least 1.
        block_learning_rate: Of the blocks' part, at the peak of its schedule, above 0.
        learning_rate: Of the outputs' part, at the peak of its schedule, above 0.
        weight_decay: Of the optimiser, at least 0.
        distillation: The weight w of learning from the teacher's outputs, in [0, 1].
        temperature: Softens both sides of the distillation loss, above 0.
        bf16: Whether to autocast to bfloat16; "auto" does where the device has instructions for it.
        generator: Draws all that is random here.
        on_step: Called with (step, steps, loss) after every step; the loss of the first part is the mean error of a
            block (`block_errors`).

    Raises:
        ValueError: There is no teacher, or no block is left.
    """
    if teacher is None:
        raise ValueError("recover=block_distillation needs a teacher, the dense network; pass one")
    teacher = copied(teacher).eval() if teacher.training else teacher
    trained = copied(network).eval()
    how = Learning(
        steps=max(steps, 1),
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        distillation=distillation,
        temperature=temperature,
        hidden_states=0.0,
        bf16=runs_in_bf16(network, task.data.train.inputs, task.forward) if bf16 == "auto" else bf16,
        optimizer="adamw",
        clip_norm=1.0,
    )
    blocks = replace(how, steps=max(block_steps, 1), learning_rate=block_learning_rate)
    wrong = _wrong_blocks(trained, task, teacher=teacher, how=how) if block_steps else ()
    done = block_steps if wrong else 0

    def counted(before: int, step: int, _: int, loss: float) -> None:
        if on_step is not None:
            on_step(before + step, done + steps, loss)

    if wrong:
        with _learning_only(trained, wrong):
            _learn_blocks(trained, task, teacher=teacher, how=blocks, generator=generator, on_step=partial(counted, 0))
    if steps:
        learn(trained, task, how=how, teacher=teacher, generator=generator, on_step=partial(counted, done))
    return trained


def _wrong_blocks(network: nn.Module, task: Task, *, teacher: nn.Module, how: Learning) -> tuple[str, ...]:
    """The blocks that do something else than the dense network does there, by the first batch."""
    inputs, device = rows(task.data.train.inputs, slice(0, how.batch_size)), task.device.type
    autocast = torch.autocast(device, torch.bfloat16) if how.bf16 else nullcontext()
    with torch.no_grad(), autocast, BlockLocal.opened(network, task, teacher=teacher, bf16=bool(how.bf16)) as local:
        local.forward(network, inputs)
        errors = local.errors.tolist()
    return tuple(span.block for span, error in zip(local.of, errors, strict=True) if error > EXACT)


def _learn_blocks(
    network: nn.Module, task: Task, *, teacher: nn.Module, how: Learning, generator: torch.Generator, on_step: OnStep
) -> None:
    """Trains the blocks that require gradients, in place, on the dense network's streams."""
    learning = [any(p.requires_grad for p in network.get_submodule(span.block).parameters()) for span in spans(network)]
    with BlockLocal.opened(network, task, teacher=teacher, bf16=bool(how.bf16)) as local:
        how.minimise(
            lambda *_: local.errors[learning].mean(),
            network,
            task,
            forward=local.forward,
            generator=generator,
            on_step=on_step,
        )


@contextmanager
def _learning_only(network: nn.Module, blocks: tuple[str, ...]) -> Iterator[None]:
    """Nothing but these blocks requires gradients while the context is open; frozen parameters stay frozen."""
    free = {parameter for parameter in network.parameters() if parameter.requires_grad}
    own = {parameter for block in blocks for parameter in network.get_submodule(block).parameters()}
    try:
        for parameter in free - own:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_()


@contextmanager
def _fed(network: nn.Module, begins: Mapping[str, str], dense: Places) -> Iterator[None]:
    """Each block reads the dense network's stream instead of what comes."""

    def feed(begins: str, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        stream = dense[begins].detach()
        return ((stream, *arguments[1:]), named) if arguments else (arguments, {**named, "hidden_states": stream})

    with ExitStack() as hooks:
        for block, start in begins.items():
            hooks.enter_context(
                network.get_submodule(block).register_forward_pre_hook(partial(feed, start), with_kwargs=True)
            )
        yield
