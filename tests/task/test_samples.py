"""Samples of one tensor or several are counted, cut and joined alike."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autoprune.task.samples import (
    cut,
    cuts,
    joined_samples,
    leaves,
    mapped,
    named_outputs,
    number_of,
    rows,
    samples_within,
)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def structures(number: int) -> list[Any]:
    a, b = torch.arange(number * 2).view(number, 2), torch.arange(number)
    return [a, (a, b), [a, (b, None)], {"x": a, "y": {"z": b}}, Pair(a, b), OrderedDict(a=a, b=b)]


@given(number=st.integers(1, 40), size=st.integers(1, 50), which=st.integers(0, 5))
def test_parts_join_to_the_whole_and_no_last_part_is_a_single_sample(number: int, size: int, which: int) -> None:
    whole = structures(number)[which]
    parts = cut(whole, size)
    again = joined_samples(parts)
    assert type(again) is type(whole)
    assert all(torch.equal(x, y) for x, y in zip(leaves(again), leaves(whole), strict=True))
    sizes = [number_of(part) for part in parts]
    assert sum(sizes) == number
    assert all(part == size for part in sizes[:-1])
    assert sizes[-1] <= size + 1
    assert sizes[-1] > 1 or size == 1 or number == 1
    assert cuts(number, size) == [0, *torch.tensor(sizes).cumsum(0).tolist()]


def test_what_is_no_tensor_is_passed_through() -> None:
    assert mapped({"a": torch.ones(2), "b": None, "c": 3}, lambda x: x + 1)["b"] is None
    assert rows((torch.arange(4), "text"), slice(1, 3))[1] == "text"
    assert mapped(None, torch.neg) is None


def test_outputs_have_names() -> None:
    logits, boxes, cache = torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 9)
    assert list(named_outputs(logits)) == [""]
    nested = {"logits": logits, "past_key_values": (cache,), "boxes": (boxes, boxes.long())}
    assert list(named_outputs(nested)) == ["logits", "boxes.0"]
    assert list(named_outputs(Pair(logits, boxes))) == ["0", "1"]
    for wrong, said in ((None, "returns None"), ({"loss": 3}, r"a mapping of \['loss'\]"), ((1, "a"), "a tuple of")):
        with pytest.raises(TypeError, match=said):
            named_outputs(wrong)


@given(number=st.integers(1, 40), most=st.integers(1, 50), which=st.integers(0, 5), pass_bytes=st.integers(0, 999))
def test_a_pass_takes_fewer_large_samples(number: int, most: int, which: int, pass_bytes: int) -> None:
    whole = structures(number)[which]
    size = samples_within(whole, most, pass_bytes=pass_bytes)
    taken = sum(tensor.nbytes for tensor in leaves(whole)) / number * size
    assert 1 <= size <= most
    assert taken <= pass_bytes or size <= 2
    assert samples_within(whole, most) == most  # of small ones
