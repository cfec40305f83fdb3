from itertools import islice
from pathlib import Path

import pytest

from autoprune.task.corpora import documents, kjv_is_installed

needs_kjv = pytest.mark.skipif(not kjv_is_installed(), reason="needs Debian's bible-kjv")


@pytest.mark.parametrize(("name", "words"), [("topics", "assert_stmt"), ("descriptions", "iris")])
def test_included_texts_are_there(name: str, words: str) -> None:
    found = list(documents(name))
    assert all(document == document.strip() != "" for document in found)
    assert sum(map(len, found)) > 30_000
    assert any(words in document for document in found)
    assert found == list(documents(name))


def test_docstrings_are_read_as_they_are_asked_for() -> None:
    assert all(len(document) > 0 for document in islice(documents("docstrings"), 20))


def test_a_files_documents_are_its_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one\ntwo\n\n\n  \nthrée\n\n", encoding="utf-8")
    assert list(documents(str(path))) == ["one\ntwo", "thrée"]


def test_bytes_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=r"picture.png.*UTF-8"):
        list(documents(str(path)))


def test_unknown_texts_are_answered_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"'wikitext'.*or the path"):
        documents("wikitext")


def test_without_the_bible_command_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install bible-kjv bible-kjv-text, or give another text"):
        list(documents("kjv"))


@needs_kjv
def test_the_bibles_parts_are_whole_books() -> None:
    ruth, job = list(documents("kjv:Ruth")), list(documents("kjv:job-psa"))
    assert (len(ruth), len(job)) == (4, 42 + 150)  # chapters
    assert job[0].startswith("There was a man in the land of Uz, whose name was Job;")
    assert "1:2" not in ruth[0]
    assert len(list(documents("kjv"))) == 1189


@needs_kjv
@pytest.mark.parametrize("part", ["Job-Gen", "Mal-Job", "Tolstoy"])
def test_what_is_no_part_of_the_bible_is_answered_with_its_books(part: str) -> None:
    with pytest.raises(ValueError, match=rf"kjv:{part}.*Job, Psa"):
        list(documents(f"kjv:{part}"))


def test_data_sets_are_read_where_the_library_is(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"n": 1, "story": "once"}\n{"n": 2, "story": "upon"}\n')
    assert list(documents(f"datasets:{tmp_path}")) == ["once", "upon"]
    (tmp_path / "train.jsonl").write_text('{"text": "once", "title": "a"}\n')
    assert list(documents(f"datasets:{tmp_path}@train")) == ["once"]
