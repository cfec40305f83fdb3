import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.importance.criterion import CriterionInputs, rank
from autoprune.importance.magnitude import magnitude
from autoprune.structure.groups import Structure
from autoprune.task.task import plain_forward
from tests.models import PRUNABLE


@pytest.fixture(scope="module")
def structure() -> Structure:
    """Groups conv1 with 8 units and conv2 with 6."""
    return PRUNABLE["residual"].structure()


def scores(**changes: Tensor) -> dict[str, Tensor]:
    return {"conv1": torch.arange(8.0), "conv2": torch.tensor([1.0, 3.0, 2.0, 3.0, 0.0, 3.0]), **changes}


def test_the_most_important_unit_comes_first_and_ties_keep_their_order(structure: Structure) -> None:
    ranking = rank(scores(), structure, criterion="l1")
    assert ranking["conv1"].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert ranking["conv2"].tolist() == [1, 3, 5, 2, 0, 4]
    assert ranking["conv1"].dtype == torch.int64


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_scores_name_criterion_and_group(structure: Structure, value: float) -> None:
    broken = torch.arange(6.0)
    broken[[2, 5]] = value
    with pytest.raises(ValueError, match=r"2 of.*6 units.*'conv2' NaN.*unit 2"):
        rank(scores(conv2=broken), structure, criterion="taylor")


@pytest.mark.parametrize("shape", [(5,), (6, 1), ()])
def test_misshapen_scores_name_criterion_and_group(structure: Structure, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"l1.*'conv2'.*6 units.*shape \("):
        rank(scores(conv2=torch.zeros(shape)), structure, criterion="l1")


def test_missing_and_unknown_groups_are_named(structure: Structure) -> None:
    some = scores(conv9=torch.zeros(3))
    del some["conv1"]
    with pytest.raises(ValueError, match=r"l1.*\['conv1'\].*\['conv9'\]"):
        rank(some, structure, criterion="l1")


def test_a_broken_weight_is_found_by_its_score(structure: Structure) -> None:
    network = PRUNABLE["residual"]
    model = network.model()
    model.conv2.weight.data[4, 0, 0, 0] = torch.nan
    given = CriterionInputs(model, structure, network.role(), F.cross_entropy, plain_forward, torch.Generator())
    with pytest.raises(ValueError, match=r"'conv2' NaN.*unit 4"):
        rank(magnitude(given, order=1, read=False), structure, criterion="l1")
