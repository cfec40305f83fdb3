"""Cuts a network into layers that can be timed alone, each with what is fused to it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoprune.cost.recording import Recording, Step
from autoprune.device.fused_layer import Call, FusedLayer

ACTIVATIONS = ("relu", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu", "elu")
NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "_batch_norm_with_update")
JOINING = ("cat", "stack")  # their inputs have the same width by chance only
LAYERS = ("conv", "depthwise", "linear")  # kinds of layers that something may be fused to


@dataclass(frozen=True, slots=True)
class LayerInstance:
    """A fused layer at the width that it has in one network, in multiples of its convolution groups."""

    layer: FusedLayer
    """Its geometry."""
    inputs: int
    """Input channels, in multiples of its groups."""
    outputs: int
    """Output channels, in multiples of its groups."""


def instances_of(recording: Recording) -> tuple[list[LayerInstance], list[str]]:
    """The layers of a forward pass for a single sample, in order, and the operators that are in no layer."""
    steps = recording.steps
    readers = Counter(source for step in steps for source in step.sources)
    instances: list[LayerInstance] = []
    left_out: list[str] = []
    ends: dict[int, int] = {}  # step → the instance that ends with it
    for number, step in enumerate(steps):
        # of two branches that are added, the one that ran last is where the sum is made
        last = max((s for s in step.sources if s in ends and readers[s] == 1), default=None)
        fused = None if last is None else _fused(instances[ends[last]].layer, step)
        started = _started(step)
        if last is not None and fused is not None:
            ends[number] = ends[last]
            instances[ends[last]] = replace(instances[ends[last]], layer=fused)
        elif started is not None:
            ends[number] = len(instances)
            instances.append(started)
        else:
            left_out.append(_name(step))
    return instances, left_out


def renamed_as(instances: Sequence[LayerInstance], like: Sequence[LayerInstance]) -> list[LayerInstance]:
    """The instances of a narrower network as the same kinds of layers as in the dense one, `like`.

    A depthwise convolution of one channel looks like a plain one, and a grouped one of one each like a depthwise.

    Args:
        instances: Layers of the network.
        like: Layers whose names are taken over.
    """
    renamed = list(instances)
    for index, (own, dense) in enumerate(zip(instances, like, strict=False)):
        kinds, layer = (dense.layer.kind, own.layer.kind), own.layer
        if kinds == ("depthwise", "conv") and layer.groups * own.outputs == 1:
            renamed[index] = LayerInstance(replace(layer, kind="depthwise"), 1, 1)
        if kinds == ("conv", "depthwise") and own.outputs == dense.layer.groups:
            renamed[index] = LayerInstance(replace(layer, kind="conv", groups=dense.layer.groups), 1, 1)
    return renamed


def _started(step: Step) -> LayerInstance | None:
    """The layer that begins with a step."""
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


def _fused(layer: FusedLayer, step: Step) -> FusedLayer | None:
    """The layer with the step behind it, or None where it does not go together with it."""
    if layer.kind not in LAYERS or layer.activation is not None:
        return None
    name = _name(step)
    if name in NORMS and not (layer.norm or layer.adds):
        return replace(layer, norm=True)
    if name == "add" and len(step.inputs) == 2 and len(set(step.inputs)) == 1 and not (layer.adds or step.arguments):
        return replace(layer, adds=True)
    if name in ACTIVATIONS:
        return replace(layer, activation=Call(step.operator.replace("_.", "."), step.arguments))
    return None


def _name(step: Step) -> str:
    """`relu` of `aten.relu_.default`."""
    return step.operator.split(".")[1].rstrip("_")
