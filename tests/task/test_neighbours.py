"""Nearest neighbours of embeddings: kept by what turns all of them, lost by what shuffles them."""

import torch
from torch import Tensor, nn

from autoprune.task.neighbours import neighbour_agreement
from autoprune.task.outputs import OutputKind
from autoprune.task.roles import Roles
from autoprune.task.task import Task

POINTS = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))


def task(kind: OutputKind | None = None, model: nn.Module | None = None) -> Task:
    return Task(model or nn.Identity(), POINTS[:1], Roles.split(POINTS), kind=kind or OutputKind("embedding"))


class Moved(nn.Module):
    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


def test_a_turn_keeps_all_neighbours_and_a_projection_the_counted_share() -> None:
    turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    own = task()
    points = own.data.test.inputs
    assert neighbour_agreement(own, Moved(turned), own.data.test) == {"neighbours_as_dense": 1.0}
    flat = torch.diag(torch.tensor([1.0, 1, 1, 1, 0, 0]))
    same = 0
    for i in range(len(points)):  # one by one
        others = [j for j in range(len(points)) if j != i]
        first, second = (
            max(others, key=lambda j, x=x: float(torch.cosine_similarity(x[i], x[j], dim=0)))  # type: ignore[misc]
            for x in (points, points @ flat)
        )
        same += first == second
    assert 0 < same < len(points)
    measured = neighbour_agreement(own, Moved(flat), own.data.test)
    assert measured == {"neighbours_as_dense": torch.tensor(same / len(points)).item()}


def test_other_kinds_have_no_neighbours() -> None:
    own = task(OutputKind("regression"))
    assert neighbour_agreement(own, Moved(torch.eye(6)), own.data.test) == {}


class Two(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"image": x, "size": x[:, :1]}


def test_of_several_outputs_each_embedding_is_measured_by_name() -> None:
    own = Task(Two(), POINTS[:1], Roles.split(POINTS), kind={"image": "embedding", "size": "regression"})
    assert neighbour_agreement(own, own.model, own.data.test) == {"neighbours_as_dense_image": 1.0}
