"""How much the loss depends on each layer's outputs, by one pass backwards: errors of equal size do not matter equally.

A layer at the end of a branch adds to a stream that other branches have filled; what is lost of its outputs costs the
network its share of that stream, which a relative error of the layer alone does not say.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.importance.layer_inputs import batches
from autoprune.structure.edit import differentiable, evaluating
from autoprune.task.samples import samples_within
from autoprune.task.task import Task

SAMPLES = 512  # of the calibration role
BATCH = 64
PASS_BYTES = 2**22  # of inputs: all activations are kept until the pass backwards


def output_sensitivities(task: Task, layers: Sequence[str]) -> dict[str, float]:
    """Returns layer → Σ mean squared gradient · variance of its outputs.

    That is what the loss loses, to second order by the empirical Fisher information (arXiv 1801.05787), when an error
    as large as the outputs' spread hits all of them alike. Only ratios mean something.

    Args:
        task: The dense network, its loss and its calibration role.
        layers: Names of convolutions and linear layers.

    Raises:
        ValueError: The calibration role has no targets, so there is no loss.
    """
    role = task.data.calibration[:SAMPLES]
    if role.targets is None:
        raise ValueError(
            "the calibration role has no targets: how much the loss depends on a layer's outputs is unknown"
        )
    numbers = [parameter for parameter in task.model.parameters() if parameter.is_floating_point()]
    slopes, sums, squares, counts = (dict.fromkeys(layers, 0.0) for _ in range(4))
    for inputs, targets in batches(role, samples_within(role.inputs, BATCH, pass_bytes=PASS_BYTES)):
        with evaluating(task.model), differentiable(numbers), _outputs(task.model, layers) as outputs:
            loss = task.loss(task.forward(task.model, inputs), targets)
            named = [(name, each) for name in layers for each in outputs[name]]
            gradients = torch.autograd.grad(loss, [each for _, each in named], allow_unused=True)
        for (name, each), gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                slopes[name] += float(gradient.double().square().sum()) * len(each)  # the loss is a mean over samples
            sums[name] += float(each.detach().double().sum())
            squares[name] += float(each.detach().double().square().sum())
            counts[name] += each.numel()
    return {
        name: slopes[name] * max(0.0, squares[name] / counts[name] - (sums[name] / counts[name]) ** 2)
        for name in layers
        if counts[name]
    }


@contextmanager
def _outputs(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Every tensor that a layer returns; what follows gets a copy, which it may change in place."""
    heard: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str, _: nn.Module, arguments: object, output: Tensor) -> Tensor:
        heard[name].append(output)
        return output.clone()

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(model.get_submodule(name).register_forward_hook(partial(keep, name)))
        yield heard
