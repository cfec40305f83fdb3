"""Groups of single weights of any network: one for every convolution and linear layer."""

from collections.abc import Collection, Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from autoprune.structure.geometry import Survey, other_params
from autoprune.structure.groups import Comparison, Group, RoundTo, Structure, holds, levels_of
from autoprune.structure.layer_types import CONVOLUTIONS

MOST_COMPARED = torch.iinfo(torch.int16).max  # weights of a row, whose places are told apart by 16 bits


def single_weight_structure(
    model: nn.Module,
    surveys: Sequence[Survey],
    *,
    keep: Collection[str],
    round_to: RoundTo,
    min_units: int,
) -> Structure:
    """Returns a group for every layer that multiplies by a matrix: of each of its rows, as many weights stay.

    Nothing has to be tried: a matrix with zeros is what is left of it either way.

    Args:
        model: The dense network.
        surveys: Its runs, one for each example.
        keep: Layers that stay whole, or modules that hold such layers.
        round_to: Kept weights of a row are a multiple of it; "auto" is 1.
        min_units: The fewest weights that a row keeps.

    Raises:
        ValueError: No layer is left.
    """
    layers = {layer.name: layer for seen in reversed(surveys) for layer in seen.layers}
    groups: list[Group] = []
    unprunable: dict[str, str] = {}
    taken: dict[int, str] = {}
    for layer in layers.values():
        module = model.get_submodule(layer.name)
        if layer.kind not in ("conv", "linear"):
            continue
        levels = levels_of(
            layer.inputs * layer.kernel, round_to=1 if round_to == "auto" else round_to, min_units=min_units
        )
        kept = next((name for name in keep if holds(name, layer.name)), None)
        if kept is not None:
            reason = f"task.keep names {kept}"
        elif not isinstance(module, (*CONVOLUTIONS, nn.Linear)) or parametrize.is_parametrized(module):
            reason = f"a {type(module).__name__} has no rows of single weights"
        elif module.weight.is_complex():
            reason = "its weights are complex numbers, which no criterion compares one by one"
        elif levels[-1] > MOST_COMPARED:
            reason = f"its rows of {levels[-1]} weights are more than the {MOST_COMPARED} that are compared"
        elif len(levels) < 2:
            reason = (
                f"min_units={min_units} and round_to={round_to} leave no choice for its rows of {levels[-1]} weights"
            )
        elif id(module.weight) in taken:
            reason = f"it shares its weight with {taken[id(module.weight)]}"
        else:
            taken[id(module.weight)] = layer.name
            compared = (Comparison(layer.name, levels[-1]),)
            groups.append(Group(layer.name, "weight", levels[-1], (), levels, compared=compared))
            continue
        unprunable[layer.name] = reason
    if not groups:
        raise ValueError(f"nothing in this network can be pruned by structure.prune=[weights]: {unprunable}")
    return Structure(tuple(groups), tuple(layers.values()), unprunable, other_params(model, tuple(layers.values())))
