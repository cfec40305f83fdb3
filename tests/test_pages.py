"""Pages are built, not committed."""

from pathlib import Path

import pytest

from autoprune.comparison.run_summary import write_summaries
from experiments.pages import HERE, build_pages
from tests.comparison.run_summaries import ladder
from tests.report.fidelity_studies import write_study
from tests.report.html_outline import check_page


def test_no_page_is_committed() -> None:
    assert not [path for folder in ("experiments", "docs") for path in (HERE.parent / folder).rglob("*.html")]


def test_every_file_of_data_has_its_page(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", spread=0.01, noise=0.001)
    for folder in ("ladder", "fidelity"):
        (tmp_path / folder).mkdir()
    (study.path / "fidelity.json").rename(tmp_path / "fidelity" / "resnet.json")
    write_summaries(tmp_path / "ladder" / "tables.jsonl.gz", ladder(["ppo", "random"], seeds=3))
    pages = build_pages(tmp_path / "out", data=tmp_path)
    assert [page.name for page in pages] == ["ladder_tables.html", "fidelity_resnet.html"]
    for page in pages:
        check_page(page.read_text())


@pytest.mark.slow
def test_the_committed_data_make_their_pages(tmp_path: Path) -> None:
    pages = {page.stem: page.read_text() for page in build_pages(tmp_path)}
    assert len(pages) == 1 + len([*HERE.glob("ladder/*.jsonl.gz"), *HERE.glob("fidelity/*.json")])
    assert "lenet_300_100: accuracy over size" in pages["deep_compression"]
    assert "critic_guided" in pages["ladder_live"]  # which version 0.1, that made the data, called otherwise
    assert "advised" not in pages["ladder_live"]
