"""The fidelity page from a made-up study: complete, offline, and plain about what cannot be known."""

import re
from pathlib import Path

import pytest

from autoprune.fidelity.summary import summarise
from autoprune.report.drawing import COLOURS
from autoprune.report.fidelity_page import render_fidelity, write_fidelity_page
from autoprune.report.wording import GAP
from autoprune.runs import RunFolder
from tests.report.fidelity_studies import SCORES, write_study
from tests.report.html_outline import EVIL, check_colours, check_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_study(tmp_path_factory.mktemp("fidelity") / "study", spread=0.01, noise=0.001)


@pytest.fixture(scope="module")
def page(folder: RunFolder) -> str:
    return write_fidelity_page(folder).read_text(encoding="utf-8")


def test_the_page_is_whole_and_in_its_own_colours(page: str) -> None:
    check_page(page)
    check_colours("".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL)), set(COLOURS))
    assert set(re.findall(r"var\(--(\w+)", page)) <= {*COLOURS, "page", "tint", "warn", "heat", "hot"}


def test_the_headline_says_who_ranks_best_and_how_well(page: str, folder: RunFolder) -> None:
    chosen = folder.read_json("fidelity.json")["recommendation"]
    assert chosen["repair"] == "batch_norm"
    assert chosen["reaches"] is True
    tau = f"τ = {chosen['tau']['value']:.3f}"
    assert f"batch_norm × {chosen['score']} ranks plans as 150 steps of recovery do: {tau}" in page
    assert "Recommended: batch_norm" in page
    assert "Within the better half" in page


def test_everything_is_there(page: str) -> None:
    text = page.replace(GAP, " ")
    for title in ("What a search sees, and what recovery makes of it", "Do plans differ at all?"):
        assert f'aria-label="{title}"' in text
    assert 'aria-label="Groups alone and together"' in text
    assert "How well each proxy ranks the plans" in text
    assert "72 rankings" in text  # three proxies × four scores × three lengths × two budgets
    for shown in (
        "324 ms",
        "7.2 s",
        "30 s",
        "abc1234",
        "autoprune fidelity plans=16",
        "1f1f",
        "2500 held out",
        "93.4 %",
    ):
        assert shown in text
    assert "R² = 1.000" not in text  # these singles have nothing to do with these plans
    assert "An unfinished study" not in text


def test_where_noise_is_all_there_is_nothing_can_rank(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", spread=0.0, noise=0.002)
    chosen = folder.read_json("fidelity.json")["recommendation"]
    text = write_fidelity_page(folder).read_text()
    assert "nothing can rank these plans" in re.findall(r"<h1>(.*?)</h1>", text)[0]
    assert "The default, batch_norm × kl, stays" in text
    assert (chosen["repair"], chosen["score"], chosen["rule"], chosen["reaches"]) == ("batch_norm", "kl", "kept", None)


def test_an_unfinished_study_gets_what_there_is(tmp_path: Path) -> None:
    text = write_fidelity_page(write_study(tmp_path / "study", spread=0.01, noise=0.001, done=0.5)).read_text()
    assert "An unfinished study of fashion_resnet20" in text
    assert 'aria-label="Do plans differ at all?"' in text
    check_page(text)


def test_a_study_that_has_hardly_begun_gets_a_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", spread=0.01, noise=0.001, done=0.0)
    for name in ("proxies.jsonl", "singles.jsonl", "run.json"):
        (folder.path / name).unlink()
    summarise(folder, scores=SCORES)
    text = write_fidelity_page(folder).read_text()
    assert "0 of" in text
    check_page(text)


def test_what_comes_from_the_file_is_escaped(folder: RunFolder) -> None:
    result = folder.read_json("fidelity.json")
    result["run"] |= {"name": EVIL, "overrides": [EVIL]}
    result["task"] = EVIL
    text = render_fidelity(result)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_same_file_gives_the_same_page(folder: RunFolder, page: str) -> None:
    assert render_fidelity(folder.read_json("fidelity.json")) == page
