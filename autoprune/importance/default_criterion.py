"""The criterion that suits the kind of network: what is used where nobody says."""

import torch
from torch import nn

from autoprune.importance.criterion import Importance, Scores
from autoprune.structure.families import FAMILIES, model_type
from autoprune.structure.groups import Structure
from autoprune.task.task import Forward, Loss, Role


def default_criterion(  # noqa: PLR0913 - a Criterion and its settings
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    forward: Forward,
    generator: torch.Generator,
    transformers: Importance,
    others: Importance,
) -> Scores:
    """Scores by `transformers` or by `others`.

    The norms of weights say little in a gated FFN: on SmolLM2-135M, 10 % of all neurons by norm take perplexity from 29
    to thousands, by activations to 33.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        loss: (outputs, targets) → a scalar; used by criteria that need gradients.
        forward: (network, inputs) → outputs: how the network is called.
        generator: Draws all that is random here.
        transformers: The criterion of transformers.
        others: The criterion of all other networks.
    """
    criterion = transformers if model_type(model) in FAMILIES else others
    return criterion(model, structure, role, loss=loss, forward=forward, generator=generator)
