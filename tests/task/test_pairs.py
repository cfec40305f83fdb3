from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune.task.pairs import pair_data
from autoprune.task.text import Sizes, Sources

SIZES = Sizes(tokens=10, train=6, calibration=2, search=4, test=3, held_out=2)


@dataclass(frozen=True)
class Numbers:
    """A tokenizer for texts of numbers: each is its own token."""

    pad_token_id: int | None = 0

    def __call__(self, text: str | list[str], **options: Any) -> Mapping[str, Any]:
        length = options["max_length"]
        rows = [[int(word) for word in one.split()][:length] for one in text]
        return {"input_ids": [row + [0] * (length - len(row)) for row in rows]}


def texts(folder: Path) -> Sources:
    for place, name in enumerate("abc"):
        paragraphs = [" ".join(str(1000 * place + 13 * i + j + 1) for j in range(13)) for i in range(40)]
        (folder / name).write_text("\n\n".join(paragraphs))
    a, b, c = (str(folder / name) for name in "abc")
    return Sources(train=a, calibration=a, search=b, test=b, held_out=(c,))


def test_each_sample_finds_its_neighbour_by_half_of_its_words(tmp_path: Path) -> None:
    data = pair_data(Numbers(), sources=texts(tmp_path), sizes=SIZES)
    targets = torch.cat([role.targets for _, role in data.roles.items()])
    assert sorted([*targets.tolist(), *data.held_out[str(tmp_path / "c")].targets.tolist()]) == list(range(17))
    for role in (*(role for _, role in data.roles.items()), *data.held_out.values()):
        assert role.inputs.shape == (len(role), 10)
        for row, target in zip(role.inputs, role.targets, strict=True):
            passage, random_neighbour = (part[part != data.pad] for part in (row, data.passages[target]))
            assert len(passage) == len(random_neighbour) == 4
            assert passage[2:].tolist() == random_neighbour[:2].tolist()
            assert torch.equal(torch.cat([passage, random_neighbour[2:]]).diff(), torch.ones(5, dtype=torch.long))


def test_no_run_of_words_crosses_documents(tmp_path: Path) -> None:
    data = pair_data(Numbers(), sources=texts(tmp_path), sizes=SIZES)
    first = (data.roles.search.inputs[:, 0] - 1001) % 13
    assert set(first.tolist()) == {0, 6}  # 13 words make two runs of six


def test_too_few_words_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"520 words.*80 samples of 6.*\(2\).*\(90\)"):
        pair_data(Numbers(), sources=texts(tmp_path), sizes=SIZES.changed({"train": 90}))


def test_a_tokenizer_without_padding_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no padding token"):
        pair_data(Numbers(None), sources=texts(tmp_path), sizes=SIZES)
