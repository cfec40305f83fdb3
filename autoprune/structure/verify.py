"""Whether what removing units does is what masking them does: groups are offered only where it is."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from autoprune.structure.edit import Ranking, masked, shrink
from autoprune.structure.families import model_type
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import first_outputs

OUTPUT = "the network's output"
PROBED = 16  # tokens that removing is compared with masking on
TOLERANCE = 1e-4  # largest difference between masked and shrunk outputs, relative to the outputs' own size


def verified(structure: Structure, model: nn.Module, example_input: Tensor) -> Structure:
    """Moves groups whose removal is not equal to masking (say, a softmax over channels) to the unprunable ones."""
    generator = torch.Generator().manual_seed(0)
    ranking = {g.name: torch.randperm(g.units, generator=generator) for g in structure.groups}
    good, unprunable, together = [], dict(structure.unprunable), structure.units
    for index, group in enumerate(structure.groups):
        alone = structure.units
        alone[index] = together[index] = group.levels[len(group.levels) // 2 - 1]
        # alone, because what other groups removed may silence it; with those before it, because they go together
        error = _differs(structure, alone, ranking, model, example_input)
        error = error or _differs(structure, together, ranking, model, example_input)
        if error:
            unprunable[group.name] = error
            together[index] = group.units
        else:
            good.append(group)
    return replace(structure, groups=tuple(good), unprunable=unprunable)


def sampled(structure: Structure, model: nn.Module, example_input: Tensor) -> Structure:
    """The structure, if one group of each kind, and all together, are removed as they are masked.

    Of groups that compare single weights one is enough: a matrix with zeros is what is left of it either way.
    """
    if example_input.is_meta:
        return structure  # a dry run: there are no outputs to compare
    example_input = example_input[:, :PROBED]
    first = {group.granularity: index for index, group in reversed(list(enumerate(structure.groups)))}
    ranking: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    together = structure.units
    for index, group in enumerate(structure.groups):
        if group.compared and index not in first.values():
            continue
        together[index] = group.levels[(len(group.levels) - 1) // 2]
        ranking[group.name] = torch.randperm(group.units, generator=generator)
        for matrix in group.compared:
            shape = model.get_submodule(matrix.layer).get_parameter("weight").shape
            places = (
                torch.rand(shape, generator=generator).unflatten(1, (-1, matrix.size)).argsort(dim=2).argsort(dim=2)
            )
            ranking[group.name] = places.flatten(1).to(torch.int16)
    trials = [together]
    for index in first.values():
        trials.append(structure.units)
        trials[-1][index] = together[index]
    for kept in trials:
        error = _differs(structure, kept, ranking, model, example_input)
        if error:
            changed = [g.name for g, k in zip(structure.groups, kept, strict=True) if k < g.units][:3]
            raise ValueError(
                f"a {type(model).__name__} of type {model_type(model)!r} is not built as autoprune knows it: {error}, "
                f"pruning {changed}"
            )
    return structure


def _differs(
    structure: Structure, kept: IntArray, ranking: Ranking, model: nn.Module, example_input: Tensor
) -> str | None:
    plan = structure.plan(kept)
    probe = example_input
    if probe.is_floating_point():
        probe = torch.rand(probe.shape, generator=torch.Generator().manual_seed(1)).to(probe)
    with torch.inference_mode():
        with masked(model, structure, plan, ranking):
            expected = first_outputs(model(probe))
        try:
            outputs = first_outputs(shrink(model, structure, plan, ranking)(probe))
        except Exception as error:  # whatever a user's forward pass checks
            return f"the network does not run without its units ({error})"
    scale = max(1.0, expected.abs().max().item())
    if outputs.shape != expected.shape:
        return OUTPUT
    difference = (outputs - expected).abs().max().item()
    if difference <= TOLERANCE * scale:
        return None
    return f"removing its units differs from masking them by {difference:.2g}"
