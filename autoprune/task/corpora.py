"""Texts by name, as streams of documents: what Python, scikit-learn and Debian bring along, files, and data sets."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from shutil import which

from autoprune.task.conversations import SUFFIXES, Document, document_of, is_written, written_documents

KJV = "kjv"
DATASETS = "datasets:"
VERSE = re.compile(r"(?P<chapter>(?P<book>\d?[A-Za-z]+)\d+):\d+ (?P<words>.*)")  # 1Sm17:4 And there went out …

Documents = Iterator[Document]


def documents(text: str) -> Documents:
    """The text's documents, one after the other, read as they are asked for; none is empty.

    topics: the language reference that Python's own help() shows, 0.5 MB. descriptions: of scikit-learn's data sets,
    0.04 MB. docstrings: scikit-learn's, 2 MB. kjv, or a part such as kjv:Job-Mal: the King James Bible of Debian's
    package bible-kjv, 4.4 MB, by chapters. datasets:NAME, datasets:NAME,CONFIGURATION, and either with @SPLIT: the
    column `text` (or the only one of strings) of what the `datasets` library loads, or its messages, prompts with
    completions, or instructions. Anything else is a file in UTF-8: a .jsonl or .json file of these
    (task/conversations.py), or one whose documents are its paragraphs.
    Raises ValueError for a text that there isn't, FileNotFoundError for one that isn't installed.
    """
    if text in INCLUDED:
        documents_read = INCLUDED[text]()
    elif text.partition(":")[0] == KJV:
        documents_read = _kjv(text.partition(":")[2])
    elif text.startswith(DATASETS):
        documents_read = _dataset(text.removeprefix(DATASETS))
    elif Path(text).is_file() and Path(text).suffix in SUFFIXES:
        documents_read = written_documents(Path(text))
    elif Path(text).is_file():
        documents_read = _paragraphs(Path(text))
    else:
        raise ValueError(
            f"there is no text {text!r}; give {', '.join(INCLUDED)}, {KJV} or a part such as {KJV}:Job-Mal, "
            f"{DATASETS}NAME, or the path of a text or .jsonl file"
        )
    stripped = (each.strip() if isinstance(each, str) else each for each in documents_read)
    return (document for document in stripped if str(document).strip())


def kjv_is_installed() -> bool:
    """Whether Debian's `bible` command is there (apt-get install bible-kjv bible-kjv-text)."""
    return which("bible") is not None


def _topics() -> Documents:
    from pydoc_data.topics import topics  # half a megabyte of text

    yield from topics.values()


def _descriptions() -> Documents:
    for path in sorted(_sklearn().glob("datasets/descr/*.rst")):
        yield path.read_text(encoding="utf-8")


def _docstrings() -> Documents:
    for path in sorted(_sklearn().rglob("*.py")):
        if "tests" in path.parts or "externals" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


INCLUDED: Mapping[str, Callable[[], Documents]] = {
    "topics": _topics,
    "descriptions": _descriptions,
    "docstrings": _docstrings,
}


def _sklearn() -> Path:
    import sklearn  # slow to import, and only two of the texts need it

    return Path(sklearn.__file__).parent


def _kjv(part: str) -> Documents:
    """The chapters of books FROM-TO, inclusive, by the abbreviations of the `bible` command; "": of all books."""
    if not kjv_is_installed():
        raise FileNotFoundError(
            f"the text {KJV!r} is read by the command `bible`, which is not installed: "
            "apt-get install bible-kjv bible-kjv-text, or give another text"
        )
    command = ["bible", "-f", "-l100000", "gen1:1-rev22:21"]  # one verse a line
    printed = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    verses = [verse for line in printed.splitlines() if (verse := VERSE.fullmatch(line))]
    books = list(dict.fromkeys(verse["book"] for verse in verses))
    wanted = _between(books, part) if part else books
    for _, chapter in groupby((v for v in verses if v["book"] in wanted), key=lambda verse: verse["chapter"]):
        yield " ".join(verse["words"] for verse in chapter)


def _between(books: list[str], part: str) -> list[str]:
    first, dash, last = part.partition("-")
    places = {book.lower(): number for number, book in enumerate(books)}
    ends = [places.get(book.lower()) for book in (first, last if dash else first)]
    if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
        raise ValueError(f"{KJV}:{part} is no part of the Bible: give {KJV}:FROM-TO of the books {', '.join(books)}")
    return books[ends[0] : ends[1] + 1]


def _paragraphs(path: Path) -> Documents:
    try:
        yield from re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def _dataset(name: str) -> Documents:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(
            f"the text {DATASETS}{name} is read by the `datasets` library, which is not installed: pip install "
            "datasets, or give another text"
        ) from error
    source, _, split = name.partition("@")
    source, _, configuration = source.partition(",")
    rows = load_dataset(source, configuration or None, split=split or "train", streaming=True)
    column = None
    for number, row in enumerate(rows, start=1):
        if is_written(row):
            yield document_of(row, f"{DATASETS}{name}, row {number}")
            continue
        column = column or _text_column(row, name)
        yield row[column]


def _text_column(row: Mapping[str, object], name: str) -> str:
    columns = [column for column, value in row.items() if isinstance(value, str)]
    if "text" in columns:
        return "text"
    if len(columns) != 1:
        raise ValueError(f"{DATASETS}{name} has no column `text`, and {len(columns)} columns of strings: {columns}")
    return columns[0]
