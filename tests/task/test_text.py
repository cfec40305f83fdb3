from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.task.corpora import kjv_is_installed
from autoprune.task.text import ROLES, Sizes, Sources, causal_data, judged_positions, share_out

SIZES = Sizes(tokens=16, train=6, calibration=2, search=4, test=3, held_out=2)


@dataclass(frozen=True)
class Letters:
    """A tokenizer whose tokens are bytes."""

    pad_token_id: int | None = 0

    def __call__(self, text: str | list[str], **options: Any) -> Mapping[str, Any]:
        assert isinstance(text, str)
        assert options["add_special_tokens"] is False
        return {"input_ids": list(text.encode())}


def written(folder: Path, name: str, paragraphs: Sequence[str]) -> str:
    path = folder / name
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    return str(path)


def numbered(prefix: str, lines: int) -> list[str]:
    return [" ".join(f"{prefix}{i:02}.{j}" for j in range(8)) for i in range(lines)]


def texts(folder: Path, lines: int = 30) -> Sources:
    a, b, c = (written(folder, name, numbered(name, lines)) for name in "abc")
    return Sources(train=a, calibration=a, search=b, test=b, held_out=(c, a))


def test_windows_are_the_texts_tokens_and_what_follows_them(tmp_path: Path) -> None:
    data = causal_data(Letters(), sources=texts(tmp_path), sizes=SIZES, positions=4)
    whole = ("\n\n".join(numbered("b", 30)) + "\n\n").encode()
    for role, first in ((data.roles.search, 0), (data.roles.test, 4)):
        for row, (window, following) in enumerate(zip(role.inputs, role.targets, strict=True), start=first):
            tokens = list(whole[row * 17 : row * 17 + 17])
            assert window.tolist() == tokens[:16]
            assert following.tolist() == [tokens[position + 1] for position in data.positions]
            assert role.ids[row - first] == f"{tmp_path}/b:{row}"
    assert data.positions[-1] == 15
    assert data.held_out[f"{tmp_path}/c"].shape == (2, 17)


def test_nobody_reads_what_another_reads(tmp_path: Path) -> None:
    data = causal_data(Letters(), sources=texts(tmp_path), sizes=SIZES, positions=4)
    parts = {name: set(map(tuple, role.inputs.tolist())) for name, role in data.roles.items()}
    parts |= {text: set(map(tuple, windows[:, :-1].tolist())) for text, windows in data.held_out.items()}
    names = list(parts)
    assert len(names) == 6
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not parts[one] & parts[other], (one, other)


def test_more_to_train_on_moves_nobody_else(tmp_path: Path) -> None:
    few, many = (
        causal_data(Letters(), sources=texts(tmp_path), sizes=SIZES.changed({"train": n}), positions=4) for n in (1, 20)
    )
    for role in ("calibration", "search", "test"):
        assert few.roles.digests[role] == many.roles.digests[role]
    assert all(torch.equal(windows, many.held_out[text]) for text, windows in few.held_out.items())
    assert len(many.roles.train) == 20


def test_a_document_that_stands_in_two_texts_is_read_once(tmp_path: Path) -> None:
    shared = numbered("s", 12)
    one, two = written(tmp_path, "one", shared), written(tmp_path, "two", [*shared, *numbered("o", 30)])
    sources = Sources(train=one, calibration=one, search=two, test=two, held_out=())
    data = causal_data(Letters(), sources=sources, sizes=SIZES, positions=4)
    assert bytes(data.roles.calibration.inputs[0].tolist()) == b"s00.0 s00.1 s00."
    assert bytes(data.roles.search.inputs[0].tolist()) == b"s03.0 s03.1 s03."  # three were needed for eight windows


def test_a_text_that_is_too_short_is_an_error_with_numbers(tmp_path: Path) -> None:
    sources = texts(tmp_path).changed({"search": written(tmp_path, "short", ["a short text, says everybody"])})
    message = (
        r"short' has 30 tokens, which make 1 samples of 17; search \(4\) need 4, that is 68 tokens\. Ask for fewer"
    )
    with pytest.raises(ValueError, match=message):
        causal_data(Letters(), sources=sources, sizes=SIZES, positions=4)


def test_an_empty_text_is_too_short(tmp_path: Path) -> None:
    sources = texts(tmp_path).changed({"held_out": written(tmp_path, "empty", [])})
    with pytest.raises(ValueError, match=r"empty' has 0 tokens, .*held_out .*empty \(2\) need 2"):
        causal_data(Letters(), sources=sources, sizes=SIZES, positions=4)


def test_the_same_text_gives_the_same_samples(tmp_path: Path) -> None:
    sources = texts(tmp_path)
    first, second = (causal_data(Letters(), sources=sources, sizes=SIZES, positions=4) for _ in range(2))
    assert first.roles.digests == second.roles.digests


@given(st.integers(1, 200), st.data())
def test_judged_positions_are_distinct_ascending_and_late(tokens: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, tokens))
    positions = judged_positions(tokens, number)
    assert len(positions) == number
    assert positions[-1] == tokens - 1
    assert all(a < b for a, b in pairwise(positions))
    assert positions[0] >= (tokens // 2 if number <= tokens - tokens // 2 else 0)
    gaps = [b - a for a, b in pairwise(positions)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("number", [0, 17])
def test_no_more_positions_than_tokens(number: int) -> None:
    with pytest.raises(ValueError, match=rf"1 and.*16 positions.*positions={number}"):
        judged_positions(16, number)


def test_sizes_and_sources_know_their_names() -> None:
    assert SIZES.changed(None) == SIZES
    assert SIZES.changed({"test": 9}).test == 9
    with pytest.raises(ValueError, match=r"task.sizes.*\['validation'\].*\['tokens', 'train'"):
        SIZES.changed({"validation": 3})
    with pytest.raises(ValueError, match=r"sizes.search must be at least 1, got 0"):
        SIZES.changed({"search": 0})
    with pytest.raises(ValueError, match=r"task.sources has no \['val'\]"):
        Sources().changed({"val": "topics"})


def test_offline_texts_judge_on_others_than_they_calibrate_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, with_bible = [Sources.offline()], kjv_is_installed()
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no `bible`
    found.append(Sources.offline())
    for sources in found:
        calibrating, judging = {sources.train, sources.calibration}, {sources.search, sources.test}
        assert not calibrating & judging
        assert len(set(sources.held_out)) == 2
        assert not set(sources.held_out) & judging
    assert (found[0] == found[1]) != with_bible
    data = causal_data(Letters(), sources=found[1], sizes=SIZES, positions=2)
    assert {name: len(role) for name, role in data.roles.items()} == {name: getattr(SIZES, name) for name in ROLES}


@dataclass(frozen=True)
class Lines:
    """A sample is a document."""

    unit: str = "documents"
    size: int = 1

    def __call__(self, documents: Iterator[str], wanted: int) -> tuple[list[str], int]:
        samples = list(islice(documents, wanted))
        return samples, len(samples)


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_every_part_of_a_role_has_the_shares_of_its_texts(weights: list[float], samples: int) -> None:
    named = {f"text {number}": weight for number, weight in enumerate(weights)}
    sources = Sources(train="t", calibration="c", search=named, test="s", held_out=())
    sizes = Sizes(tokens=1, train=1, calibration=1, search=samples, test=1, held_out=1)
    shares = sources.texts("search")
    with patch("autoprune.task.text.documents", lambda text: (f"{text}:{number}" for number in range(100))):
        cut = share_out(sources, sizes, Lines())
    texts = [sample.partition(":")[0] for sample in cut.roles["search"].samples]
    assert len(texts) == samples == len(set(cut.roles["search"].ids))
    for text, share in shares.items():
        assert abs(texts.count(text) - share * samples) < 1
        for end in range(samples):  # of any first part, to within a sample and rounding
            assert abs(texts[:end].count(text) - texts.count(text) * end / samples) <= 1 + len(weights) / 2


@pytest.mark.parametrize("wrong", [[], ["a", "a"], {"a": 0}, {"a": -1.0}, {"a": float("nan")}])
def test_wrong_mixtures_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"task\.sources\.search"):
        Sources(search=wrong).texts("search")


def test_texts_of_a_role_take_turns(tmp_path: Path) -> None:
    one, two = (written(tmp_path, name, numbered(name, 30)) for name in ("one", "two"))
    sources = texts(tmp_path).changed({"search": {one: 2, two: 1}})
    data = causal_data(Letters(), sources=sources, sizes=SIZES, positions=4)
    names = [name.rpartition(":")[0] for name in data.roles.search.ids]
    assert names[:3].count(one) == 2
    assert set(names) == {one, two}
