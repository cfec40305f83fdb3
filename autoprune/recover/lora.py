"""Low-rank adaptation (Hu et al., arXiv 2106.09685): few trained numbers, merged into the weights at the end."""

import re
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.ranges import Count, Fraction, NonNegative, Positive, checked
from autoprune.recover.hidden_states import kept_blocks
from autoprune.recover.learning import Learning, learn
from autoprune.recover.recovery import OnStep
from autoprune.task.copies import copied
from autoprune.task.task import Task

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

ADAPTER = "default"


@checked
def lora(  # noqa: PLR0913 - a Recovery and its settings
    network: nn.Module,
    task: Task,
    *,
    teacher: nn.Module | None,
    rank: Count,
    alpha: Count,
    steps: Count,
    batch_size: Count,
    learning_rate: Positive,
    weight_decay: NonNegative,
    distillation: Fraction,
    temperature: Positive,
    hidden_states: NonNegative,
    bf16: bool | Literal["auto"],
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> nn.Module:
    """A copy of `network` in eval mode whose linear layers in its blocks have learnt W + (alpha / rank) · B A.

    A [rank, inputs] and B [outputs, rank] are trained by AdamW on the task's train role and merged; nothing of them is
    left. Weights that are exactly zero take no part and stay zero, so a sparse matrix is as sparse after it as before.
    All else, embeddings and output layer included, stays as it is. The weights in the loss are those of
    `recover.learning.Learning`.

    Raises ImportError where the extra `autoprune[llm]` is missing.

    Args:
        network: The pruned network, which stays as it is.
        task: The trained network, its data and its metric.
        teacher: The dense network to learn from; None where nothing is.
        rank: Of the low-rank update of every matrix, at least 1.
        alpha: The update is scaled by alpha ÷ rank.
        steps: Of the optimiser, at least 1.
        batch_size: Samples in one forward pass, at least 1.
        learning_rate: At the peak of the schedule, above 0.
        weight_decay: Of the optimiser, at least 0.
        distillation: The weight w of learning from the teacher, in [0, 1].
        temperature: Softens both sides of the distillation loss, above 0.
        hidden_states: The weight of matching hidden states, at least 0.
        bf16: Whether to autocast to bfloat16; "auto" does where the device has instructions for it.
        generator: Draws all that is random here.
        on_step: Called with (step, steps, loss) after every step.
    """
    how = Learning(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        distillation=distillation,
        temperature=temperature,
        hidden_states=hidden_states,
        bf16=bf16,
        optimizer="adamw",
        clip_norm=1.0,
    )
    trained = copied(network)
    flags = {name: parameter.requires_grad for name, parameter in trained.named_parameters()}
    trained.requires_grad_(False)
    adapted = _adapted(trained, rank=rank, alpha=alpha, generator=generator)
    learn(trained, task, how=how, teacher=teacher, generator=generator, on_step=on_step)
    with torch.no_grad():
        adapted.merge_and_unload()
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(flags[name])
    return trained


def _adapted(network: nn.Module, *, rank: int, alpha: int, generator: torch.Generator) -> "LoraModel":
    """Puts adapters into the linear layers of the network's blocks, in place; B is zero, so outputs are as before."""
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise ImportError(
            "recover=lora needs peft, which the extra llm brings: pip install 'autoprune[llm]'"
        ) from error
    # the blocks alone: of whole models of some types peft takes the names of layers for those of experts
    blocks = nn.ModuleList(network.get_submodule(block) for block in kept_blocks(network))
    linear = [name for name, layer in blocks.named_modules() if isinstance(layer, nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="|".join(map(re.escape, linear)))
    config._register_custom_module({nn.Linear: _sparse_linear()})
    with torch.random.fork_rng(devices=[generator.device] if generator.device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        return LoraModel(blocks, config, ADAPTER)


def _sparse_linear() -> type[nn.Module]:
    """The adapter of a linear layer of whose weights some are gone; made here, as importing peft takes seconds."""
    from peft.tuners.lora import Linear

    class SparseLinear(Linear):
        """Adapts the weights that are not zero only, in training as in what is merged."""

        def __init__(self, base_layer: nn.Linear, *arguments: Any, **named: Any) -> None:
            super().__init__(base_layer, *arguments, **named)
            there = base_layer.weight.detach() != 0
            self.there = None if bool(there.all()) else there

        def get_delta_weight(self, adapter: str) -> Tensor:
            delta = super().get_delta_weight(adapter)
            return delta if self.there is None else delta * self.there

        def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
            if self.there is None:  # two thin products are cheaper than the sum of the matrices
                return super().forward(x, *arguments, **named)
            layer: nn.Linear = self.base_layer  # type: ignore[assignment]
            return F.linear(x, layer.weight + self.get_delta_weight(ADAPTER), layer.bias)

    return SparseLinear
