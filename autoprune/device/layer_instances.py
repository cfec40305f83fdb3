"""Cuts a network into pieces that can be timed alone."""

from collections import Counter
from dataclasses import dataclass, replace

from torch import Tensor, nn

from autoprune.device.fused_layer import Call, FusedLayer
from autoprune.device.operators import Step, record
from autoprune.task.task import Forward, plain_forward

ACTIVATIONS = ("relu", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu", "elu")
NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "_batch_norm_with_update")
JOINING = ("cat", "stack")  # their inputs have the same width by chance only
LAYERS = ("conv", "depthwise", "linear")  # kinds of pieces that something may be fused to


@dataclass(frozen=True, slots=True)
class LayerInstance:
    """A piece at the width that it has in one network; channels are counted in multiples of the piece's groups."""

    piece: FusedLayer
    inputs: int
    outputs: int


def layer_instances(
    network: nn.Module, example_input: Tensor, *, forward: Forward = plain_forward
) -> tuple[list[LayerInstance], list[str]]:
    """The pieces of one forward pass for a single sample, in order, and the operators that no piece covers."""
    steps = record(network, example_input[:1], forward=forward)
    readers = Counter(source for step in steps for source in step.sources)
    cuts: list[LayerInstance] = []
    left_out: list[str] = []
    ends: dict[int, int] = {}  # step → the cut that ends with it
    for number, step in enumerate(steps):
        # of two branches that are added, the one that ran last is where the sum is made
        last = max((s for s in step.sources if s in ends and readers[s] == 1), default=None)
        fused = None if last is None else _fused(cuts[ends[last]].piece, step)
        started = _started(step)
        if last is not None and fused is not None:
            ends[number] = ends[last]
            cuts[ends[last]] = replace(cuts[ends[last]], piece=fused)
        elif started is not None:
            ends[number] = len(cuts)
            cuts.append(started)
        else:
            left_out.append(_name(step))
    return cuts, left_out


def _started(step: Step) -> LayerInstance | None:
    """The piece that begins with a step."""
    weight = step.weights[0] if step.weights else ()
    bias, arguments = len(step.weights) == 2, step.arguments[step.arguments[:1] == (None,) :]
    match _name(step):
        case "convolution" if weight and arguments[3] is False:  # not a transposed one
            stride, padding, dilation, _, _, groups = arguments
            size, kernel, (outputs, inputs) = step.inputs[0][2:], weight[2:], weight[:2]
            geometry = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "bias": bias}
            if groups == outputs > 1 and inputs == 1:
                return LayerInstance(FusedLayer("depthwise", size, **geometry), outputs, outputs)
            return LayerInstance(FusedLayer("conv", size, **geometry, groups=groups), inputs, outputs // groups)
        case "addmm" | "mm" if len(weight) in (1, 2):
            rows, inputs = step.inputs[0]
            return LayerInstance(FusedLayer("linear", (rows,), bias=bias), inputs, step.output[-1])
        case name if name not in JOINING and not weight and len(step.inputs[0]) > 1 and len(set(step.inputs)) == 1:
            channels, size = step.inputs[0][1], step.inputs[0][2:]
            call = Call(step.operator, step.arguments)
            return LayerInstance(FusedLayer("op", size, op=call, tensors=len(step.inputs)), channels, channels)
    return None


def _fused(piece: FusedLayer, step: Step) -> FusedLayer | None:
    """The piece with the step behind it, or None where it does not go together with it."""
    if piece.kind not in LAYERS or piece.activation is not None:
        return None
    name = _name(step)
    if name in NORMS and not (piece.norm or piece.adds):
        return replace(piece, norm=True)
    if name == "add" and len(step.inputs) == 2 and len(set(step.inputs)) == 1 and not (piece.adds or step.arguments):
        return replace(piece, adds=True)
    if name in ACTIVATIONS:
        return replace(piece, activation=Call(step.operator.replace("_.", "."), step.arguments))
    return None


def _name(step: Step) -> str:
    """`relu` of `aten.relu_.default`."""
    return step.operator.split(".")[1].rstrip("_")
