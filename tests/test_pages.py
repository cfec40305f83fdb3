"""Pages are built, not committed."""

from pathlib import Path

import pytest

from experiments.pages import HERE, build_pages
from tests.report.html_outline import check_page


def test_no_page_is_committed() -> None:
    assert not [path for folder in ("experiments", "docs") for path in (HERE.parent / folder).rglob("*.html")]


@pytest.mark.slow
def test_the_committed_data_make_their_pages(tmp_path: Path) -> None:
    pages = {page.stem: page.read_text() for page in build_pages(tmp_path)}
    for page in pages.values():
        check_page(page)
    assert len(pages) == 1 + len([*HERE.glob("ladder/*.jsonl.gz"), *HERE.glob("fidelity/*.json")])
    assert "lenet_300_100: accuracy over size" in pages["deep_compression"]
    assert "critic_guided" in pages["ladder_live"]  # which version 0.1, that made the data, called otherwise
    assert "advised" not in pages["ladder_live"]
