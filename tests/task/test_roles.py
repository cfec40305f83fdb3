"""One pile of samples becomes four roles; what is no tensor is refused in a sentence."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoprune.task.roles import Role, Roles

INPUTS = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(120) % 3


class Mappings(Dataset[dict[str, Any]]):
    """As Hugging Face's data sets give them."""

    def __len__(self) -> int:
        return 120

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"image": INPUTS[place], "table": INPUTS[place, :2].numpy(), "labels": int(LABELS[place])}


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(INPUTS, LABELS, strict=True))


PILES: dict[str, Any] = {
    "a data set": TensorDataset(INPUTS, LABELS),
    "a loader that shuffles": DataLoader(TensorDataset(INPUTS, LABELS), batch_size=7, shuffle=True, drop_last=True),
    "a stream": DataLoader(Stream(), batch_size=7),
    "a role": Role(INPUTS, LABELS),
    "a pair": (INPUTS, LABELS),
    "turned around": (INPUTS.flip(0), LABELS.flip(0)),
}


@pytest.mark.parametrize("name", PILES)
def test_the_same_pile_is_dealt_the_same_way_however_it_comes(name: str) -> None:
    expected, roles = Roles.split(INPUTS, LABELS), Roles.split(PILES[name])
    assert {n: len(r) for n, r in roles.items()} == {"train": 60, "calibration": 12, "search": 30, "test": 18}
    assert roles.digests == expected.digests
    assert Roles.split(INPUTS, LABELS, seed=1).digests != expected.digests


def test_mappings_are_inputs_and_labels() -> None:
    roles = Roles.split(Mappings())
    assert roles.train.inputs.keys() == {"image", "table"}
    assert torch.equal(roles.train.inputs["image"][:, :2], roles.train.inputs["table"])
    assert sorted(torch.cat([role.targets for _, role in roles.items()]).tolist()) == sorted(LABELS.tolist())
    assert Role.from_dataset(Mappings(), limit=9).inputs["image"].shape == (9, 4)


def test_unlabelled_piles() -> None:
    for pile in (INPUTS, TensorDataset(INPUTS), Role(INPUTS)):
        roles = Roles.split(pile)
        assert roles.search.targets is None
        assert torch.cat([role.inputs for _, role in roles.items()]).shape == INPUTS.shape
    two = Roles.split(TensorDataset(INPUTS, INPUTS[:, :1], LABELS))
    assert isinstance(two.train.inputs, tuple)
    assert two.train.targets.dtype == torch.int64


@given(
    rare=st.integers(1, 30), number=st.integers(40, 150), seed=st.integers(0, 99),
    shares=st.sampled_from([None, (0.25, 0.25, 0.25, 0.25), (0.7, 0.05, 0.2, 0.05)]),
)  # fmt: skip
def test_every_class_has_its_share_of_every_role(
    rare: int, number: int, seed: int, shares: tuple[float, ...] | None
) -> None:
    labels = (torch.arange(number) < rare).long()
    asked = (
        {} if shares is None else {"shares": dict(zip(("train", "calibration", "search", "test"), shares, strict=True))}
    )
    roles = Roles.split(torch.arange(number).view(-1, 1), labels, seed=seed, **asked)
    for _, role in roles.items():
        assert abs(int(role.targets.sum()) - rare * len(role) / number) <= 2
    every = torch.cat([role.inputs for _, role in roles.items()]).flatten().tolist()
    assert sorted(every) == list(range(number))


def test_equal_rows_stay_together() -> None:
    rows = torch.randint(0, 2, (600, 6), generator=torch.Generator().manual_seed(0)).float()
    roles = Roles.split(rows, (rows.sum(1) > 3).long())  # which would raise if two shared a row
    assert sum(len(role) for _, role in roles.items()) == 600
    assert all(len(role) > 20 for _, role in roles.items())
    with pytest.raises(ValueError, match=r"share .* ids=.*Roles.split"):
        Roles(*(Role(rows[i::4]) for i in range(4)))
    named = Roles.split(rows, ids=[f"row {i}" for i in range(600)])
    assert {n: len(r) for n, r in named.items()} == {"train": 300, "calibration": 60, "search": 150, "test": 90}


def test_numbers_of_samples() -> None:
    shares = {"train": 50, "calibration": 10, "search": 20, "test": 5}
    assert {n: len(r) for n, r in Roles.split(INPUTS, shares=shares).items()} == shares
    assert [len(r) for _, r in Roles.split(INPUTS[:5]).items()] == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("pile", "settings", "message"),
    [
        (INPUTS[:4], {}, "at least 5 samples, got 4"),
        (INPUTS, {"shares": {"train": 1.0}}, "one number for each of"),
        (INPUTS, {"shares": {"train": 200, "calibration": 1, "search": 2, "test": 1}}, "more than the 120 samples"),
        (
            INPUTS,
            {"shares": {"train": 0.5, "calibration": 3, "search": 0.1, "test": 0.1}},
            "or all whole",
        ),
        (INPUTS, {"ids": ["a"] * 120}, "the id 'a' stands for several samples"),
        (INPUTS, {"ids": ["a"]}, "120 inputs but 1 ids"),
    ],
)
def test_piles_that_cannot_be_dealt(pile: Tensor, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Roles.split(pile, **settings)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (np.array(["a", "b"]), None, "inputs of a role are tensors, got ndarray"),
        (torch.zeros(4, 2), [0, 1, 0, 1], r"int; torch.tensor\(x\)"),
        ({"a": torch.zeros(4), "b": None}, None, "NoneType"),
        ("images", None, "inputs of a role are tensors, got str"),
    ],
)
def test_what_is_no_tensor_is_refused(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Role(inputs, targets)


def test_arrays_are_tensors_and_labels_are_int64() -> None:
    role = Role({"a": np.zeros((4, 2)), "b": INPUTS[:4]}, np.array([0, 1, 0, 1], np.int32))
    assert role.inputs["a"].dtype == torch.float64
    assert role.targets.tolist() == [0, 1, 0, 1]
    assert role.targets.dtype == Role(INPUTS, LABELS.to(torch.uint8)).targets.dtype == torch.int64
    assert Role(INPUTS.to(torch.uint8)).inputs.dtype == torch.uint8, "images stay as they are"
    ours, theirs = Roles.split(INPUTS.numpy(), LABELS.numpy()), Roles.split(INPUTS, LABELS)
    assert ours.digests == theirs.digests


@pytest.mark.parametrize("whole", [False, True])
def test_iterators_give_samples_or_batches(whole: bool) -> None:
    items = zip(INPUTS.split(50), LABELS.split(50), strict=True) if whole else zip(INPUTS, LABELS.tolist(), strict=True)
    role = Role.from_dataset(item for item in items)  # type: ignore[arg-type]
    assert role.inputs.equal(INPUTS)
    assert role.targets.equal(LABELS)


def test_samples_of_different_shapes_need_a_collate_function() -> None:
    samples = [(torch.zeros(3 + i % 2), i % 2) for i in range(12)]
    with pytest.raises(ValueError, match=r"different shapes .*\[3\] .*\[4\].*collate_fn that pads"):
        Roles.split(torch.utils.data.StackDataset([x for x, _ in samples], [y for _, y in samples]))


def test_several_inputs_are_samples_together() -> None:
    role = Role((INPUTS, {"a": LABELS}), LABELS)
    assert len(role) == 120
    assert role[3:5].inputs[1]["a"].tolist() == LABELS[3:5].tolist()
    assert role[torch.tensor([5, 2])].inputs[0].equal(INPUTS[[5, 2]])
    assert len(set(role.ids)) == 120
    assert Role((INPUTS, {"a": LABELS + 1}), LABELS).digest != role.digest
    assert Role([INPUTS, LABELS]).inputs == (INPUTS, LABELS)
    with pytest.raises(ValueError, match=r"lengths \[60, 120\]"):
        Role((INPUTS, LABELS[:60]))
    with pytest.raises(ValueError, match="120 inputs but 60 targets"):
        Role(INPUTS, {"a": LABELS[:60]})
