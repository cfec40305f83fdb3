"""A task: a trained network, its data in four disjoint roles, and the metric that says how good it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.ranges import Count, Natural, check_fields
from autoprune.task.copies import check_copies
from autoprune.task.default_metrics import (
    IGNORED,
    VOID,
    DefaultLoss,
    DefaultMetric,
    NeedsLabels,
    has_defaults,
    is_plain,
)
from autoprune.task.given_functions import check_answers, few_answers, left_out_targets, name_of, reading
from autoprune.task.kind_inference import KindSetting, described, output_kinds
from autoprune.task.outputs import OutputKind
from autoprune.task.placement import DTYPES, Dtype, check_in_memory, checked_device, in_dtype
from autoprune.task.roles import Role, Roles, on_device
from autoprune.task.samples import (
    Samples,
    as_tensors,
    check_one_each,
    first_tensor,
    in_float32,
    leaves,
    loaded,
    mapped,
    named_outputs,
    number_of,
    paired_targets,
    read_as_float32,
    rows,
)
from autoprune.task.seeded_forward import SeededForward, draws_random_numbers
from autoprune.task.unwrapped import unwrapped, unwrapped_names

__all__ = ["Architecture", "Role", "Roles", "Task", "accuracy", "first_outputs", "outputs_of", "plain_forward"]

Metric = Callable[[Any, Any], float]  # (outputs, targets) → higher is better
Loss = Callable[[Any, Any], Tensor]  # (outputs, targets) → scalar
Forward = Callable[[nn.Module, Any], Any]  # (network, inputs) → outputs
Measure = Callable[[nn.Module], Mapping[str, float | str]]

PROBED = 32  # samples that a task's network is tried on, fewer where they are large
PROBED_NUMBERS = 500_000


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Top-1 accuracy in [0, 1] of logits [N, classes] against class indices [N].

    Args:
        outputs: What the network returned.
        targets: What outputs are compared with.
    """
    return (outputs.argmax(dim=1) == targets).float().mean().item()


def plain_forward(network: nn.Module, inputs: Samples) -> Samples:
    """What a network returns: a tuple of inputs is its positional arguments, a mapping its keyword arguments.

    Args:
        network: The network.
        inputs: What the network reads [N, ...].
    """
    match inputs:
        case Mapping():
            return network(**inputs)
        case tuple() | list():
            return network(*inputs)
    return network(inputs)


@torch.inference_mode()
def outputs_of(network: nn.Module, inputs: Samples, forward: Forward = plain_forward) -> Samples:
    """The network's outputs for a batch [N, ...], in float32 and without gradients.

    Args:
        network: The network.
        inputs: What the network reads [N, ...].
        forward: (network, inputs) → outputs: how the network is called.
    """
    return in_float32(forward(network, loaded(inputs)))


def first_outputs(outputs: Samples) -> Tensor:
    """The outputs themselves, or the first tensor of a tuple, list or mapping's values."""
    return first_tensor(outputs)


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to build the dense network again without pickle."""

    builder: str
    """A function of autoprune's, by its qualified name."""
    arguments: Mapping[str, int | float | str] = field(default_factory=dict)
    """Its arguments, in JSON's values."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A trained network, how it is called and judged, and its data.

    What its outputs mean (`kind`) is inferred from the outputs, targets and loss, and metric and loss follow from it,
    where nothing is said. A metric or loss gets what `forward` returns, whole; if it can't read that, its first tensor.

    Raises TypeError or ValueError, in one sentence, where network, data, kind, loss and metric do not fit together.

    >>> task = Task(model, torch.zeros(1, 3, 32, 32), Roles.split(dataset))
    """

    model: nn.Module
    """The trained network, taken out of an nn.DataParallel or torch.compile; it is put in eval mode. One of another
    precision than `dtype` is taken as a copy in that, with its samples."""
    example_input: Samples
    """[1, ...]: one sample as `Role.inputs` hold them, on the device where networks run."""
    data: Roles
    """Train, calibration, search and test samples."""
    metric: Metric = None  # type: ignore[assignment]  # settled by what outputs mean
    """(outputs, targets) → float, higher is better; None: what fits the kind.
    One that is no mean over samples sees a whole role at once."""
    name: str = "custom"
    """What the task is called in reports and run folders."""
    loss: Loss = None  # type: ignore[assignment]  # settled by what outputs mean
    """(outputs, targets) → what training minimises; None: what fits the kind. Of a number for each sample, or a sum
    over samples, the mean is taken."""
    keep: frozenset[str] = frozenset()
    """Qualified names of layers whose outputs are never pruned."""
    budget: str | None = None
    """What is asked for when nobody says, such as macs:0.5."""
    augment: Callable[[Any, torch.Generator], Any] | None = None
    """(inputs, generator) → inputs of the same shapes, for training only."""
    architecture: Architecture | None = None
    """How the dense network is built, for tasks that come with autoprune."""
    forward: Forward = plain_forward
    """(network, inputs) → outputs: how the network is called, and what of its answer is judged. If the network draws
    random numbers, it draws the same ones each time."""
    block: Count = 10
    """Samples that are judged together; two networks are compared in pairs of blocks."""
    prune: tuple[str, ...] | None = None
    """Kinds of groups that are looked for (structure.prune says which there are); None: what is found by itself."""
    measure: Measure | None = None
    """network → more of what a final report says of it, by name."""
    tokenizer: Path | None = None
    """The folder of the files that turn text into tokens, which go wherever the network goes."""
    onnx: bool = True
    """Final networks are exported to ONNX as well."""
    recovery_steps: Natural = 150
    """Steps of recovery, where nobody says; 0 for models whose training takes hours."""
    levels: Count | None = None
    """How many numbers of units each group may keep, spaced evenly; None: all that there are."""
    proxy_samples: Count | None = None
    """How many of the search role rewards see, where nobody says."""
    table: Path | None = None
    """A file where every plan was judged (docs/tables.md), which answers in the proxy's place."""
    kind: KindSetting | None = None
    """What the first output means, or each by name: "classification", "segmentation", "multilabel" (one logit as well),
    "regression", "embedding", "language", or an `OutputKind` with axis, probabilities and weight; None: inferred."""
    example_inputs: tuple[Samples, ...] = ()
    """More examples like `example_input`, for layers that only some inputs reach."""
    outputs: tuple[OutputKind, ...] = ()
    """The kinds of all outputs; they follow from `kind`."""
    precision: str | None = None
    """What the network's weights were given in, such as bfloat16; it is noticed."""
    dtype: Dtype = "float32"
    """Of the weights that all networks are searched, judged and handed out with: "float32", or "bfloat16", which takes
    half of the memory, for networks that read whole numbers such as tokens."""

    def __post_init__(self) -> None:
        for name in ("keep", "prune", "example_inputs"):
            if isinstance(value := getattr(self, name), list | set | tuple):
                object.__setattr__(self, name, frozenset(value) if name == "keep" else tuple(value))
        check_fields(self, "task")
        if isinstance(self.example_inputs, Tensor | Mapping):
            raise TypeError("task.example_inputs is a tuple of further examples; write (example,) for one")
        object.__setattr__(self, "keep", unwrapped_names(self.model, self.keep))
        object.__setattr__(self, "model", unwrapped(self.model))
        check_in_memory(self.model)
        example = tuple(self.example_input) if isinstance(self.example_input, list) else self.example_input
        object.__setattr__(self, "example_input", loaded(as_tensors(example)))
        object.__setattr__(self, "example_inputs", loaded(as_tensors(self.example_inputs)))
        unknown = sorted(self.keep - {name for name, _ in self.model.named_modules()})
        if unknown:
            layers = [n for n, m in self.model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            raise ValueError(f"task.keep names {unknown}, which the model lacks; its layers are {layers}")
        self._check_shapes()
        self._take_dtype()
        if self.model.eval() is not self.model:
            raise ValueError(
                f"{type(self.model).__name__}.eval() must return the module itself, as torch's does, and returned "
                "another value; end it with return self"
            )
        if not self.outputs:
            self._settle()
        for name, role in self.data.items():
            self._check_labels(name, role)

    @property
    def device(self) -> torch.device:
        return leaves(self.example_input)[0].device

    @property
    def judged(self) -> dict[str, Any]:
        """What a report has to know to name the numbers: the first output's kind, and the metric's name and unit."""
        if not self.measured:
            name = None
        elif isinstance(self.metric, DefaultMetric) or self.metric is accuracy:
            name = {"regression": "R²", "embedding": "cosine"}.get(self.outputs[0].kind, "accuracy")
        else:
            name = name_of(self.metric)
            name = {"lambda": "metric", "partial": "metric", "token_accuracy": "accuracy"}.get(name, name)
        return {"kind": self.outputs[0].kind, "metric": name, "percent": name is not None and name.endswith("accuracy")}

    def describe(self) -> str:
        """What is judged and by what, in a sentence for the terminal."""
        metric = self.judged["metric"]
        by = f"by {metric}"
        if metric is None:
            without = "unlabelled" if self.data.test.targets is None else "no metric follows from its targets"
            by = f"{without}, so by what the dense network answers"
        noise = "; it draws random numbers, the same ones every time" if isinstance(self.forward, SeededForward) else ""
        cast = f"; its {self.precision} weights are taken as {self.dtype}" if self.precision != self.dtype else ""
        return f"judged as {described(self.outputs)}, {by}{noise}{cast}"

    @property
    def measured(self) -> bool:
        """There is a metric for what targets there may be."""
        return not isinstance(self.metric, NeedsLabels)

    @property
    def trained(self) -> bool:
        """There is a loss, and targets to train with."""
        return not isinstance(self.loss, NeedsLabels) and self.data.train.targets is not None

    def require_labels(self, what: str) -> None:
        """Raises ValueError, which says that `what` needs labels, where a role has none."""
        missing = [name for name, role in self.data.items() if role.targets is None]
        if missing or not (self.measured and self.trained):
            where = f"roles {missing} have no targets" if missing else "no metric or loss follows from its targets"
            way = "score=kl and learning from the dense network (recover=distill) need none"
            raise ValueError(f"{what} needs labels, but of task {self.name!r} {where}; {way}")

    def keeping(self, names: frozenset[str]) -> "Task":
        """The same task with more layers never pruned."""
        return replace(self, keep=self.keep | names)

    def on(self, device: str | torch.device) -> "Task":
        """The task with its network and data on the device: cpu, cuda, or cuda:N. The network itself is moved."""
        there = checked_device(device)
        first, *others = mapped([self.example_input, *self.example_inputs], lambda tensor: tensor.to(there))
        placed = {"example_input": first, "example_inputs": tuple(others), "data": on_device(self.data, there)}
        return replace(self, model=self.model.to(there), **placed)

    def with_data(self, data: Roles) -> "Task":
        """The same network and metric on other data."""
        return replace(self, data=data)

    def tensors(self, outputs: Samples) -> dict[str, Tensor]:
        """The outputs that are judged, float32, by name. Raises TypeError where one is missing."""
        named = named_outputs(outputs)
        missing = [kind.name for kind in self.outputs if kind.name not in named]
        if missing:
            raise TypeError(f"the network returns the outputs {list(named)}, and not {missing}")
        return {kind.name: named[kind.name].float() for kind in self.outputs if kind.weight}

    def _check_shapes(self) -> None:
        """Roles hold samples of the example input's structure and shapes."""
        if not leaves(self.example_input):
            got = type(self.example_input).__name__
            raise TypeError(f"task.example_input is a tensor [1, ...], or a tuple or mapping of such, got {got}")
        for name, role in self.data.items():
            ours, examples = mapped(role.inputs, _shape), mapped(self.example_input, _shape)
            if ours != examples:
                several = isinstance(self.example_input, tuple)
                one_less = several and ours == (examples[:-1] if len(examples) > 2 else examples[0])
                way = "give it their form"
                if one_less and role.targets is not None:
                    way += "; of a tuple of data the last part is its targets, and Role((…)) takes all as inputs"
                raise ValueError(
                    f"samples of role {name!r} have shape {ours}, but the example input has {examples}; {way}"
                )

    def _take_dtype(self) -> None:
        """Networks are searched in one precision: weights and samples of another one are copied into it."""
        given = {p.dtype for p in self.model.parameters() if p.is_floating_point()} - {DTYPES[self.dtype]}
        noticed = str(given.pop()).removeprefix("torch.") if given else self.dtype
        object.__setattr__(self, "precision", self.precision or noticed)
        if noticed != self.dtype:
            object.__setattr__(self, "model", in_dtype(self.model, DTYPES[self.dtype]))
        inputs = [self.example_input, *self.example_inputs, *(role.inputs for _, role in self.data.items())]
        floats = {tensor.dtype for tensor in leaves(inputs) if tensor.is_floating_point()}
        if floats and self.dtype != "float32":
            raise ValueError(
                f"task.dtype={self.dtype} is for networks that read whole numbers, such as tokens, and this one reads "
                f"{', '.join(map(str, floats))}; leave it out, and set evaluation.precision=bf16 to judge at half of it"
            )
        if floats - {torch.float32}:
            roles = {name: replace(role, inputs=read_as_float32(role.inputs)) for name, role in self.data.items()}
            object.__setattr__(self, "data", Roles(**roles))
            object.__setattr__(self, "example_input", in_float32(self.example_input))
            object.__setattr__(self, "example_inputs", in_float32(self.example_inputs))

    def _settle(self) -> None:
        """Tries the network, loss and metric on a few samples and settles what outputs mean."""
        role = self.data.calibration
        numbers = sum(tensor.numel() // len(tensor) for tensor in leaves(role.inputs))
        few = slice(0, max(2, min(PROBED, PROBED_NUMBERS // max(1, numbers))))
        inputs = rows(role.inputs, few)
        with torch.no_grad():
            try:
                outputs = self.forward(self.model, inputs)
            except Exception as error:
                raise ValueError(
                    f"the network does not run on samples of role 'calibration', of shape {mapped(inputs, _shape)}: "
                    f"{type(error).__name__}: {error}"
                ) from error
        tensors = named_outputs(outputs)
        check_one_each(tensors, number_of(inputs))
        check_copies(self.model, lambda network: self.forward(network, rows(inputs, slice(0, 2))))
        self._check_augment(inputs)
        if draws_random_numbers(self.model, inputs, self.forward):
            object.__setattr__(self, "forward", SeededForward(self.forward))
        targets = rows(role.targets, few)
        kinds = output_kinds(outputs, role.targets, given=self.kind, loss=self.loss, inputs=inputs, few_targets=targets)
        object.__setattr__(self, "outputs", kinds)
        own = paired_targets([kind.name for kind in kinds], targets)
        with_targets = tuple(k for k in kinds if k.weight and has_defaults(k, tensors[k.name], own[k.name]))
        plain = is_plain(kinds[0], outputs, targets)
        outputs, targets = few_answers(outputs, targets)
        loss: Loss | None = self.loss
        metric: Metric | None = self.metric
        left_out: tuple[float, ...] = ()
        if loss is None and with_targets:
            loss = F.cross_entropy if plain else DefaultLoss(with_targets)
        elif loss is not None and targets is not None:
            try:
                loss = reading("loss", loss, outputs, targets)
            except ValueError:
                self._check_labels("calibration", role)
                raise
            left_out = left_out_targets(loss, with_targets[0], outputs, role.targets) if with_targets else ()
        if metric is None and with_targets:
            plain = plain and not left_out and not any((each.targets < 0).any() for _, each in self.data.items())
            metric = accuracy if plain else DefaultMetric(with_targets[0], left_out)
        elif metric is not None and targets is not None:
            metric = reading("metric", metric, outputs, targets)
        functions: dict[str, Any] = {"loss": loss, "metric": metric}
        own = {what: function for what, function in functions.items() if getattr(self, what) is not None}
        surely = DefaultLoss(with_targets) if with_targets else loss
        check_answers(own, error=surely, outputs=outputs, targets=targets)
        object.__setattr__(self, "loss", loss or NeedsLabels("loss"))
        object.__setattr__(self, "metric", metric or NeedsLabels("metric"))

    def _check_augment(self, inputs: Samples) -> None:
        try:
            if self.augment is not None:
                self.augment(inputs, torch.Generator().manual_seed(0))
        except Exception as error:
            call = "task.augment is called with samples and a torch.Generator, (inputs, generator) → inputs, and fails"
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"{call} on those of role 'calibration': {why}") from error

    def _check_labels(self, name: str, role: Role) -> None:
        """Class indices are those of classes, or the loss takes them all the same."""
        own = paired_targets([kind.name for kind in self.outputs], role.targets)
        for kind in self.outputs:
            labels = own[kind.name]
            if labels is None or labels.is_floating_point() or labels.dtype == torch.bool or kind.classes is None:
                continue
            void = torch.tensor([IGNORED, VOID] if kind.kind == "segmentation" else [IGNORED], device=labels.device)
            wrong = ((labels < 0) | (labels >= kind.classes)) & ~torch.isin(labels, void)
            at = wrong.reshape(len(wrong), -1).any(dim=1).nonzero().flatten()[:1]
            if len(at) and (isinstance(self.loss, DefaultLoss) or not self._learns_from(role[at])):
                label, last = int(labels[wrong][0]), kind.classes - 1
                from_one = bool((labels[~torch.isin(labels, void)] > 0).all()) and label == kind.classes
                way = "; they seem to begin at 1: give labels - 1" if from_one else ""
                raise ValueError(f"role {name!r} has the label {label}, but the network's classes are 0 to {last}{way}")

    def _learns_from(self, samples: Role) -> bool:
        """Whether the loss of these samples can be computed."""
        try:
            self.loss(outputs_of(self.model, samples.inputs, self.forward), loaded(samples.targets))
            return True
        except (IndexError, RuntimeError, ValueError):
            return False


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[1:])
