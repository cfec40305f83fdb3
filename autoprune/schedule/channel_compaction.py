"""A network whose channels are masked trains on without them: the same numbers, in less time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoprune.plan import PruningPlan
from autoprune.schedule.masked_training import Snapshot, Training
from autoprune.structure.edit import Ranking, shrink
from autoprune.structure.groups import Structure
from autoprune.task.copies import copied

Places = Mapping[str, Tensor]  # tensor of the small network → where its numbers stand in the large one's of that name


@contextmanager
def without_channels(
    training: Training, structure: Structure, plan: PruningPlan, ranking: Ranking
) -> Iterator[Training]:
    """A smaller network trains in the place of the masked one while the context is open; then that one has its weights.

    Weights, the optimizer's state, statistics of norms, the order of samples, dropout's numbers and the clock go over
    and come back. Removed channels are 0 and stay so in either, so both trainings are the same but for the order of
    sums; dropout draws fewer numbers of a smaller network.

    Args:
        training: Its masks are those of the plan.
        structure: The groups of its network.
        plan: How many units of each stay.
        ranking: Group → its units, those that stay first.
    """
    small_model = shrink(training.model, structure, plan, ranking)
    places = _places(training.model, structure, plan, ranking)
    small = Training(training.task, small_model, training.layers, training.recipe, training.seed)
    small.restore(_smaller(training.snapshot(), places))
    try:
        yield small
    finally:
        training.restore(_larger(small.snapshot(), training.snapshot(), places))


def _places(model: nn.Module, structure: Structure, plan: PruningPlan, ranking: Ranking) -> Places:
    """Where every number of the small network stands in the large one: a copy full of its own addresses is shrunk."""
    addressed = copied(model).double()  # whole numbers up to 2⁵³ are exact
    with torch.no_grad():
        for tensor in addressed.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape))
    small, dense = shrink(addressed, structure, plan, ranking).state_dict(), model.state_dict()
    return {
        name: tensor.long() if tensor.is_floating_point() else torch.arange(dense[name].numel()).view(dense[name].shape)
        for name, tensor in small.items()
    }


def _smaller(large: Snapshot, places: Places) -> Snapshot:
    """The small network's snapshot that a masked one's is."""
    tensors = {name: value for name, value in large.tensors.items() if name.partition("/")[0] in ("order", "random")}
    for name, at in places.items():
        tensors[f"model/{name}"] = _taken(large.tensors[f"model/{name}"], at)
    for key, value in large.tensors.items():
        kind, _, rest = key.partition("/")
        name = rest.partition("/")[2]
        if kind == "optimizer" and name in places:
            whole = value.shape == large.tensors[f"model/{name}"].shape
            tensors[key] = _taken(value, places[name]) if whole else value
    return Snapshot(tensors, large.numbers)


def _larger(small: Snapshot, large: Snapshot, places: Places) -> Snapshot:
    """The masked network's snapshot once the small one has trained; what is not in the small one is as it was."""
    tensors = dict(large.tensors)
    for key, value in small.tensors.items():
        kind, _, rest = key.partition("/")
        name = rest if kind == "model" else rest.partition("/")[2]
        if kind not in ("model", "optimizer", "point"):
            tensors[key] = value
        elif value.shape == small.tensors[f"model/{name}"].shape:  # of a point that was saved since, and the others
            now = large.tensors[f"model/{name}"]
            before = torch.zeros_like(now, dtype=value.dtype) if kind == "optimizer" else now
            tensors[key] = _put(before, places[name], value)
        else:
            tensors[key] = value
    return Snapshot(
        tensors, {**small.numbers, "positions": {**large.numbers["positions"], **small.numbers["positions"]}}
    )


def _taken(tensor: Tensor, places: Tensor) -> Tensor:
    return tensor.flatten()[places.to(tensor.device)]


def _put(tensor: Tensor, places: Tensor, values: Tensor) -> Tensor:
    flat = tensor.flatten().clone()
    flat[places.flatten().to(tensor.device)] = values.flatten()
    return flat.view(tensor.shape)
