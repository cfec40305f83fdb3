"""A structure whose groups come from a table of families is tried on one group of each kind, and on all together."""

import torch
from torch import Tensor, nn

from autoprune.structure.families import model_type
from autoprune.structure.groups import Structure
from autoprune.structure.verify import Run, differs


def sampled(structure: Structure, model: nn.Module, example_input: Tensor, run: Run) -> Structure:
    """The structure, if one group of each kind, and all together, are removed as they are masked.

    Of groups that compare single weights one is enough: a matrix with zeros is what is left of it either way.

    Args:
        structure: The groups, of which some kinds have many alike.
        model: The dense network, as it was before when this returns.
        example_input: [1, T] token ids; on the meta device nothing is tried.
        run: Gives a network's outputs by name.
    """
    if example_input.is_meta:
        return structure  # a dry run: there are no outputs to compare
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
            scores = torch.rand(shape, generator=generator).unflatten(1, (-1, matrix.size))
            ranking[group.name] = scores.argsort(dim=2).argsort(dim=2).flatten(1).to(torch.int16)
    trials = [together]
    for index in first.values():
        trials.append(structure.units)
        trials[-1][index] = together[index]
    for kept in trials:
        error = differs(structure, kept, ranking, model, [run])
        if error:
            changed = [g.name for g, k in zip(structure.groups, kept, strict=True) if k < g.units][:3]
            raise ValueError(
                f"a {type(model).__name__} of type {model_type(model)!r} is not built as autoprune knows it: {error}, "
                f"pruning {changed}"
            )
    return structure
