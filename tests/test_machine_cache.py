import json
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune import machine_cache
from autoprune.machine_cache import FILE, MeasurementCache, cache_dir, choose_allocator, keep_freed_memory
from tests.commands import run_python

QUESTION = {"question": "how fast", "size": 3}


@pytest.fixture(autouse=True)
def _allocator_as_it_was() -> Iterator[None]:
    yield
    keep_freed_memory(False)


def counted(answer: Any) -> tuple[Callable[[], Any], list[Any]]:
    """A measurement, and what it has said so far."""
    said: list[Any] = []

    def measure() -> Any:
        said.append(answer)
        return answer

    return measure, said


@pytest.mark.parametrize("answer", [True, False, 0.25, 17, "bf16", None, [1, 2], {"a": 1}])
def test_what_was_measured_once_is_remembered(tmp_path: Path, answer: Any) -> None:
    measure, said = counted(answer)
    folder = tmp_path / "not" / "there"
    for _ in range(3):
        assert MeasurementCache(folder).get_or_measure(QUESTION, measure) == answer
    assert len(said) == 1
    assert (
        MeasurementCache(folder).get_or_measure(dict(reversed(QUESTION.items())), measure) == answer
    )  # in whatever order it is asked
    assert len(said) == 1
    assert [file.name for file in folder.iterdir()] == [FILE]


def test_another_question_is_another_answer(tmp_path: Path) -> None:
    notebook = MeasurementCache(tmp_path)
    assert [notebook.get_or_measure({**QUESTION, "size": size}, lambda size=size: size) for size in (1, 2, 1)] == [
        1,
        2,
        1,
    ]
    assert notebook.get_or_measure({**QUESTION, "size": 1}, lambda: 100) == 1
    assert len(json.loads((tmp_path / FILE).read_text())) == 2


def test_another_machine_measures_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = MeasurementCache(tmp_path)
    assert notebook.get_or_measure(QUESTION, lambda: 1) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert notebook.get_or_measure(QUESTION, lambda: 2) == 2
    monkeypatch.undo()
    assert notebook.get_or_measure(QUESTION, lambda: 3) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b'"text"', b"null"])
def test_a_damaged_notebook_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    measure, said = counted(5)
    assert (
        MeasurementCache(tmp_path).get_or_measure(QUESTION, measure)
        == MeasurementCache(tmp_path).get_or_measure(QUESTION, measure)
        == 5
    )
    assert len(said) == 1


def test_without_a_folder_nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measure, said = counted(5)
    assert [MeasurementCache(None).get_or_measure(QUESTION, measure) for _ in range(2)] == [5, 5]
    assert len(said) == 2
    assert not list(tmp_path.iterdir())


def test_a_measurement_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        MeasurementCache(tmp_path).get_or_measure(QUESTION, lambda: 1 / 0)
    assert not list(tmp_path.iterdir())
    assert MeasurementCache(tmp_path).get_or_measure(QUESTION, lambda: 1) == 1


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("AUTOPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "autoprune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "autoprune"


@pytest.mark.slow
def test_the_allocator_is_chosen_by_measuring_once(tmp_path: Path) -> None:
    """In a process of its own: what it sets holds for all of it."""
    program = (
        "import sys, time, torch\nfrom pathlib import Path\ntorch.set_num_threads(1)\n"
        "from autoprune.machine_cache import MeasurementCache, choose_allocator, keep_freed_memory\n"
        "chosen = choose_allocator(MeasurementCache(Path(sys.argv[1])))\n"
        "for keep in (True, False, True, chosen):\n"
        "    keep_freed_memory(keep)\n"
        "    assert [float(torch.ones(n).sum()) for n in (3, 10**6, 10**7)] == [3, 10**6, 10**7]\n"
        "print(chosen)"
    )
    done = run_python(program, str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip()
    (answer,) = json.loads((tmp_path / FILE).read_text()).values() if sys.platform == "linux" else (said == "True",)
    assert said == str(answer)


@pytest.mark.parametrize(("faster", "chosen"), [(0.5, True), (0.96, True), (0.99, False), (1.5, False)])
def test_freed_memory_is_kept_where_that_is_faster(
    faster: float, chosen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        """glibc, as far as it is needed."""

        def __init__(self) -> None:
            self.options: dict[int, int] = {}

        def mallopt(self, option: int, value: int) -> int:
            self.options[option] = value
            return 1

    library = Library()
    seconds = iter([1.0, faster])
    monkeypatch.setattr(machine_cache, "_glibc", lambda: library)
    monkeypatch.setattr(machine_cache, "_seconds", lambda: next(seconds))
    for _ in range(2):  # the second time it is remembered, and set again
        library.options.clear()
        assert choose_allocator(MeasurementCache(tmp_path)) is chosen
        assert library.options[-3] == (2**30 if chosen else 2**25)  # and never less than glibc's own would grow to
        assert set(library.options) == {-1, -2, -3}


def test_another_c_library_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    keep_freed_memory(True)
    assert choose_allocator(MeasurementCache(tmp_path)) is False
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="another C library")
def test_much_free_memory_goes_back_and_little_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed blocks between others that are in use, which glibc keeps by itself."""

    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    release = machine_cache._Releasing()
    keep_freed_memory(True)
    blocks = [torch.ones(2**20) for _ in range(32)]  # of 4 MB
    del blocks[::2]
    full = resident()
    monkeypatch.setattr(machine_cache, "FREED_BYTES", 2**40)
    release()
    assert resident() > full - 2**23
    monkeypatch.setattr(machine_cache, "FREED_BYTES", 2**25)
    release()
    assert resident() < full - 2**25
    for block in blocks:
        block.add_(1)
    again = [torch.ones(2**20) for _ in range(4)]
    del again
    full = resident()
    release()
    assert resident() > full - 2**23, "16 MB more than after the last time are kept"


@pytest.mark.parametrize("variable", ["AUTOPRUNE_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_a_cache_that_cannot_be_written_is_replaced_for_this_process(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("which is no folder")
    for name in ("AUTOPRUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    folder = cache_dir()
    assert folder == cache_dir()
    assert tmp_path not in folder.parents
    assert MeasurementCache(folder).get_or_measure(QUESTION, lambda: 3) == 3
    assert [str(tmp_path / "file") in record.message for record in caplog.records] == [True]


def test_the_cache_of_a_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("AUTOPRUNE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "autoprune"
    monkeypatch.setenv("AUTOPRUNE_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "mine"
