"""Which kind of output a network has, from its outputs, the targets and the loss; what stays ambiguous is refused."""

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.task.outputs import CATEGORICAL, OutputKind
from autoprune.task.samples import Samples, leaves, mapped, named_outputs, paired_targets
from autoprune.task.target_forms import are_numbers, form_hint, has_negative_answers

KindSetting = str | OutputKind | Mapping[str, str | OutputKind]

# What the names in a loss's code say of the outputs that it reads; the first that fits counts for a name.
FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("logits", ("bcewithlogits", "binary_cross_entropy_with_logits", "logsigmoid", "multilabel", "sigmoid_focal")),
    ("yes or no", ("binary_cross_entropy", "bceloss")),
    ("numbers", ("poisson_nll", "poissonnll", "gaussian_nll", "gaussiannll")),
    ("classes", ("cross_entropy", "crossentropy", "nll_loss", "nllloss", "log_softmax", "multi_margin", "focal")),
    ("directions", ("cosine_embedding", "cosineembedding", "triplet", "cosine_similarity", "cosinesimilarity", "cdist",
                    "pairwise_distance", "contrastive", "infonce", "arcface")),
    ("numbers", ("mse_loss", "mseloss", "l1_loss", "l1loss", "huber", "quantile", "pinball")),
)  # fmt: skip
UNCHANGED = 1e-4  # share of a loss below which it stays what it was
FEW = 8  # values in [0, 1] from which on outputs are said to be probabilities


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one output's kind is inferred from: outputs of a few samples, all its targets, families of the loss.

    families: None where no loss was given, empty where its code says nothing. tokens: the largest token that the
    network reads, where it reads token ids. loss_of: other outputs in the place of these → the loss; NaN without one.
    """

    name: str
    outputs: Tensor
    targets: Tensor | None
    families: frozenset[str] | None
    tokens: int | None
    loss_of: Callable[[Tensor], float]

    def points_to(self, family: str) -> bool:
        return self.families is not None and family in self.families


def output_kinds(
    outputs: Samples,
    targets: Samples | None,
    *,
    given: KindSetting | None,
    loss: object,
    inputs: Samples,
    few_targets: Samples = None,
) -> tuple[OutputKind, ...]:
    """The kinds of all outputs, names and axes filled in.

    Args:
        outputs: What the dense network returns for a few samples.
        targets: Of all samples of a role, or None; several outputs have the targets of their name or position, and a
            single tensor belongs to the first output.
        given: The kind of the first output, or kinds by the outputs' names; what is not given is inferred.
        loss: What training minimises, None where nobody said.
        inputs: Of the few samples.
        few_targets: Of the few samples, for losses that are tried on them.

    Raises:
        ValueError: Names of unknown outputs are given, or an output's kind is ambiguous.
    """
    outputs, few_targets = _with_finite_loss(loss, outputs, few_targets)
    tensors = named_outputs(outputs)
    settings, own = _by_name(given, list(tensors)), paired_targets(list(tensors), targets)
    families = None if loss is None else families_of(loss)
    tokens = int(inputs.max()) if isinstance(inputs, Tensor) and inputs.ndim == 2 and not _is_float(inputs) else None
    kinds = []
    for index, (name, tensor) in enumerate(tensors.items()):
        loss_of = functools.partial(_loss_with, loss, outputs, few_targets, index)
        evidence = _Evidence(name, tensor.float(), own[name], families, tokens, loss_of)
        setting = settings.get(name)
        if isinstance(setting, OutputKind):
            kind = setting
        elif setting is not None:
            kind = OutputKind(setting, axis=_axis_for(setting, evidence))  # type: ignore[arg-type]
        elif index and own[name] is None:
            kind = _unlabelled(evidence) or OutputKind("regression")  # numbers to be kept as they are
        else:
            kind = _inferred(evidence)
        kinds.append(_completed(replace(kind, name=name), evidence))
    if not any(kind.weight for kind in kinds):
        raise ValueError("every output of the network has weight 0; one needs to be judged at least")
    return tuple(kinds)


def families_of(loss: object) -> frozenset[str]:
    """What kinds of loss the names in a loss's own code tell of; empty where they tell nothing."""
    words = " ".join(_words(loss)).lower()
    families = set()
    for family, patterns in FAMILIES:
        for pattern in patterns:
            if pattern in words:
                families.add(family)
                words = words.replace(pattern, "")
    return frozenset(families)


def described(kinds: tuple[OutputKind, ...]) -> str:
    """What is judged, in words, as a run prints it."""
    total = sum(kind.weight for kind in kinds)
    parts = []
    for kind in kinds:
        words: str = kind.kind
        if kind.kind in (*CATEGORICAL, "multilabel"):
            words += " of probabilities" if kind.probabilities else " of logits"
        if len(kinds) > 1:
            words = f"{kind.name}: {words}, weight {kind.weight / total:.2g}"
        parts.append(words)
    return "; ".join(parts)


def _words(loss: Any) -> Iterator[str]:
    """Names of a loss and in its code, those of the functions and modules that it holds included."""
    if isinstance(loss, functools.partial):
        yield from _words(loss.func)
        return
    if isinstance(loss, nn.Module):
        for part in loss.modules():
            yield type(part).__name__
            if not type(part).__module__.startswith("torch."):
                yield from _in_code(type(part).forward.__code__)
        return
    function = loss if hasattr(loss, "__code__") else type(loss).__call__
    yield getattr(loss, "__name__", type(loss).__name__)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is not None and not str(getattr(loss, "__module__", "")).startswith("torch."):
        yield from _in_code(code)
        for cell in getattr(loss, "__closure__", None) or ():
            if callable(cell.cell_contents):
                yield from _words(cell.cell_contents)
        for name in code.co_names:
            held = getattr(loss, "__globals__", {}).get(name)
            if inspect.isfunction(held) and held is not loss:
                yield from _in_code(held.__code__)


def _in_code(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _in_code(constant)


def _by_name(given: KindSetting | None, names: list[str]) -> dict[str, str | OutputKind]:
    if given is None:
        return {}
    if isinstance(given, str):
        return {names[0]: given}
    if isinstance(given, OutputKind):
        return {given.name or names[0]: given} if given.name in ("", *names) else _refuse_names([given.name], names)
    unknown = [name for name in given if name not in names]
    return dict(given) if not unknown else _refuse_names(unknown, names)


def _refuse_names(unknown: list[str], names: list[str]) -> dict[str, str | OutputKind]:
    have = names if names != [""] else 'one tensor, which needs no name: kind="classification"'
    raise ValueError(f"task.kind names the outputs {unknown}, which the network lacks; it has {have}")


def _inferred(evidence: _Evidence) -> OutputKind:
    """The kind of an output that has targets, or is the first one."""
    by_loss = _by_loss(evidence)
    if by_loss is not None:
        return by_loss
    by_targets = None if evidence.targets is None else _by_targets(evidence, evidence.targets)
    inferred = by_targets or _unlabelled(evidence)
    if inferred is not None:
        return inferred
    sources = (
        "no targets of its own" if evidence.targets is None else f"targets of shape {list(evidence.targets.shape)}"
    )
    sources += " and no loss" if evidence.families is None else " and the loss"
    sources += form_hint(evidence.targets, evidence.outputs)
    called = f" {evidence.name!r}" if evidence.name else ""
    raise ValueError(
        f"what the network's outputs{called} of shape {list(evidence.outputs.shape)} mean is ambiguous from {sources}; "
        "say it by Task(kind=...): classification, segmentation, multilabel (one logit as well), regression, embedding "
        "or language, each by its output's name where there are several, or OutputKind(kind, axis=...) where classes "
        "stand on another axis"
    )


def _by_loss(evidence: _Evidence) -> OutputKind | None:
    """What the loss alone tells, where it tells one thing; classes need an axis as well."""
    families = evidence.families or frozenset()
    if evidence.points_to("classes") and (families == {"classes"} or _are_labels(evidence.targets)):
        if evidence.outputs.ndim == 1 or (evidence.outputs.shape[1] == 1 and evidence.outputs.ndim in (2, 4)):
            raise ValueError(
                f"the loss is a cross-entropy over classes, but outputs of shape {list(evidence.outputs.shape)} hold "
                "one class, whose cross-entropy is always 0; use binary_cross_entropy_with_logits for one logit"
            )
        return _classes(evidence)
    if families and families <= {"logits", "yes or no"}:
        return OutputKind("multilabel", probabilities="yes or no" in families)
    if families == {"numbers"}:
        return OutputKind("regression")
    return OutputKind("embedding") if families == {"directions"} else None


def _classes(evidence: _Evidence) -> OutputKind | None:
    """Classes on the axis that the targets lack, or that the number of axes tells; None where it could be two."""
    outputs, targets = evidence.outputs, evidence.targets
    if outputs.ndim == 2:
        return OutputKind("classification")
    if targets is not None and targets.shape[1:] == outputs.shape[1:]:  # distributions
        return OutputKind("segmentation" if outputs.ndim == 4 else "classification")
    axes = [1, -1] if targets is None else _class_axes(outputs, targets)
    by_effect = [axis for axis in (1, -1) if _by_differences(evidence, axis)]
    if len(by_effect) == 1:  # the targets of a CTC loss may be as long as there are classes
        axes = by_effect
    if outputs.ndim == 3 and -1 in axes and evidence.tokens is not None:
        return OutputKind("language")
    if outputs.ndim == 4 and 1 in axes:
        return OutputKind("segmentation")
    if len(axes) == 1:
        return OutputKind("classification", axis=axes[0])
    return None


def _class_axes(outputs: Tensor, targets: Tensor) -> list[int]:
    """The axes that outputs [few, ...] have and targets [N, ...] lack: the second, the last, or either."""
    shape = tuple(outputs.shape[1:])
    return [axis for axis, rest in ((1, shape[1:]), (-1, shape[:-1])) if rest == tuple(targets.shape[1:])]


def _by_targets(evidence: _Evidence, targets: Tensor) -> OutputKind | None:
    outputs, silent = evidence.outputs, evidence.families is not None  # a loss that tells nothing
    answers = bool(((targets == 0) | (targets == 1)).all())
    same = targets.shape[1:] == outputs.shape[1:] or targets[0].numel() == outputs[0].numel()
    if same and has_negative_answers(targets):
        return OutputKind("multilabel") if silent and bool((targets != 0).all()) else None
    if not _is_float(targets) and outputs.ndim > 1 and not same and _class_axes(outputs, targets):
        all_used = int(targets.max()) == outputs.shape[1] - 1
        if silent and outputs.ndim == 2 and not all_used and not _classifies(outputs, targets):
            return None
        return _classes(evidence)
    if not same:  # a mean and a variance, or several quantiles, of one number
        own = silent and not evidence.families and are_numbers(targets) and _unlabelled(evidence) is None
        return OutputKind("regression") if own else None
    whole = targets.shape[1:] == outputs.shape[1:] and not (silent and answers)
    axis = next((axis for axis in (1, -1) if whole and outputs.ndim > 1 and _add_up_to_one(targets, axis)), None)
    if axis is not None:  # distributions over classes
        kind = (
            OutputKind("segmentation") if outputs.ndim == 4 and axis == 1 else OutputKind("classification", axis=axis)
        )
        return kind if not silent else _unlabelled(evidence) or OutputKind("regression")
    if not answers:
        within = bool(((targets >= 0) & (targets <= 1)).all())
        two_kinds = within and evidence.points_to("numbers") and evidence.points_to("logits")
        return None if two_kinds else OutputKind("regression")
    return None if silent else OutputKind("multilabel")


def _classifies(outputs: Tensor, targets: Tensor) -> bool:
    """Whether the dense network's largest outputs are the labels, more often than by chance."""
    right = (outputs.argmax(dim=1) == targets[: len(outputs)]).float().mean().item()
    return right >= max(0.5, min(0.9, 3 / outputs.shape[1]))


def _unlabelled(evidence: _Evidence) -> OutputKind | None:
    """What outputs and loss tell by themselves: probabilities, or their logarithms, and a loss that reads logits."""
    outputs = evidence.outputs
    for axis in (1, -1) if outputs.ndim > 2 else (1,) if outputs.ndim == 2 else ():
        probabilities = _add_up_to_one(outputs, axis)
        logarithms = not probabilities and bool((outputs <= 0).all()) and _add_up_to_one(outputs.exp(), axis)
        if probabilities or logarithms or _by_differences(evidence, axis):
            if outputs.ndim == 4 and axis == 1:
                return OutputKind("segmentation", probabilities=probabilities)
            return OutputKind("classification", axis=axis, probabilities=probabilities)
    if outputs.ndim == 3 and evidence.tokens is not None and outputs.shape[-1] > evidence.tokens:
        return OutputKind("language")
    return None


def _by_differences(evidence: _Evidence, axis: int) -> bool:
    """Whether the loss reads differences along the axis only, as a softmax does: added to all, nothing changes."""
    outputs, generator = evidence.outputs, torch.Generator().manual_seed(0)
    shape = list(outputs.shape)
    shape[axis] = 1
    if outputs.shape[axis] == 1 or evidence.families is None:
        return False
    noise, shift = (torch.randn(size, generator=generator).to(outputs) for size in (outputs.shape, shape))
    before, shifted, other, doubled = map(
        evidence.loss_of, (outputs, outputs + shift, outputs + noise, outputs + outputs)
    )
    same = UNCHANGED * max(abs(before), UNCHANGED)
    return abs(shifted - before) <= same < min(abs(other - before), abs(doubled - before))


def _with_finite_loss(loss: Any, outputs: Samples, targets: Samples) -> tuple[Samples, Samples]:
    """The samples whose loss is finite, where that of all is not: a CTC loss is infinite for too long a text."""
    tensors = list(named_outputs(outputs).values())
    if loss is None or not math.isinf(_loss_with(loss, outputs, targets, 0, tensors[0])):
        return outputs, targets

    def some(samples: Samples, which: list[int]) -> Samples:
        return mapped(samples, lambda x: x[which] if x.ndim and len(x) == len(tensors[0]) else x)

    finite = []
    for sample in range(len(tensors[0])):
        own, its_targets = some(outputs, [sample]), some(targets, [sample])
        tensor = next(iter(named_outputs(own).values()))
        if math.isfinite(_loss_with(loss, own, its_targets, 0, tensor)):
            finite.append(sample)
    return (some(outputs, finite), some(targets, finite)) if finite else (outputs, targets)


def _loss_with(loss: Any, outputs: Samples, targets: Samples, index: int, tensor: Tensor) -> float:
    """The loss where the network's output of that index is another; NaN where it can't be computed."""
    replaced = list(named_outputs(outputs).values())[index]
    for given in (outputs, leaves(outputs)[0]):  # all of it, or the first tensor
        try:
            with torch.no_grad():
                value = loss(mapped(given, lambda x: tensor if x is replaced else x), targets)
            return float(torch.as_tensor(value).sum())
        except Exception:  # of a person's own function
            continue
    return float("nan")


def _axis_for(kind: str, evidence: _Evidence) -> int | None:
    """Where classes stand in outputs of a kind that was given without its axis."""
    if kind != "classification" or evidence.targets is None or evidence.outputs.ndim < 3:
        return None
    axes = _class_axes(evidence.outputs, evidence.targets)
    return axes[0] if len(axes) == 1 else None


def _completed(kind: OutputKind, evidence: _Evidence) -> OutputKind:
    """With an axis that the outputs have, and whether they are probabilities."""
    outputs = evidence.outputs
    if kind.kind != "regression" and outputs.ndim > 1 and not -outputs.ndim < kind.dim < outputs.ndim:
        raise ValueError(
            f"outputs of shape {list(outputs.shape)} have no axis {kind.dim} for {kind.kind}; see task.kind"
        )
    if kind.kind in (*CATEGORICAL, "embedding") and outputs.ndim < 2:
        raise ValueError(
            f"{kind.kind} needs several numbers for each sample, the network returns {list(outputs.shape)}; one logit "
            "is kind='multilabel', one number kind='regression'"
        )
    if kind.kind in CATEGORICAL:
        kind = replace(kind, classes=outputs.shape[kind.dim])
    if kind.probabilities is not None:
        return kind
    if kind.kind in CATEGORICAL:
        return replace(kind, probabilities=_add_up_to_one(outputs, kind.dim))
    if kind.kind == "multilabel":
        within = bool(((outputs >= 0) & (outputs <= 1)).all()) and outputs.numel() >= FEW
        return replace(kind, probabilities=within)
    return replace(kind, probabilities=False)


def _add_up_to_one(outputs: Tensor, axis: int) -> bool:
    return (
        outputs.shape[axis] > 1
        and bool((outputs >= 0).all())
        and bool(((outputs.sum(dim=axis) - 1).abs() < 1e-3).all())
    )


def _are_labels(targets: Tensor | None) -> bool:
    return targets is not None and not _is_float(targets)


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
