import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.store import EvaluationStore
from autoprune.source_digest import CODE, PACKAGE, code_digest

ROOT = Path(__file__).parent.parent.parent
TASK = {"task": "digits", "criterion": "l1"}
PRELUDE = """
import os, sys, time, logging
from pathlib import Path
import numpy as np
from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.store import EvaluationStore
logging.basicConfig()

def judged(number):
    return Judged(np.full((4, 3), number, np.float32), np.arange(3, dtype=np.int32), float(number))

def wait_for(file):
    while not file.exists():
        time.sleep(0.001)

path = Path(sys.argv[1])
"""
Process = subprocess.Popen[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def judged(number: float, blocks: int = 3) -> Judged:
    return Judged(np.full((4, blocks), number, np.float32), np.arange(blocks, dtype=np.int32), float(number))


def same(left: Judged | None, right: Judged | None) -> bool:
    """To the bit, NaN included."""
    if left is None or right is None:
        return left is right
    arrays = zip((left.values, left.samples), (right.values, right.samples), strict=True)
    return left.seconds == right.seconds and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays
    )


def start(program: str, *arguments: object, expect: str | None = None) -> Process:
    """A process of its own that has run the prelude; with `expect`, one that has printed this line already."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program, *map(str, arguments)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if expect is not None:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == expect
    return process


def finish(process: Process) -> tuple[str, str]:
    """What the process printed. It must have ended well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def fill(path: Path, plans: int, *, description: dict[str, Any] = TASK) -> None:
    """A store in which plan (i, 1) was judged on batch 0, and whose write-ahead log is empty."""
    with EvaluationStore(path) as store:
        context = store.within(description)
        for number in range(plans):
            context.put((number, 1), 0, [judged(number)])


def known(path: Path, plans: int) -> list[int]:
    """Which plans of `fill` are in the store. What is there must be what was put."""
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        found = {number: context.get((number, 1), 0, 1)[0] for number in range(plans)}
    assert all(same(part, judged(number)) for number, part in found.items() if part is not None)
    return [number for number, part in found.items() if part is not None]


def asides(path: Path) -> list[Path]:
    """The files that were set aside."""
    return [f for f in path.parent.glob(f"{path.name}.aside-*") if not f.name.endswith(("-wal", "-shm", "-journal"))]


# what is put comes back


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluationStore]:
    with EvaluationStore(tmp_path_factory.mktemp("shared") / "new" / "folders" / "store.sqlite") as store:
        yield store


@st.composite
def judgements(draw: st.DrawFn) -> Judged:
    """Any bits at all in its arrays."""
    blocks = draw(st.integers(0, 5))
    values = np.frombuffer(draw(st.binary(min_size=16 * blocks, max_size=16 * blocks)), np.float32).reshape(4, blocks)
    samples = np.frombuffer(draw(st.binary(min_size=4 * blocks, max_size=4 * blocks)), np.int32)
    values = np.asfortranarray(values) if draw(st.booleans()) else values
    return Judged(values, samples, draw(st.floats(min_value=0, allow_nan=False, allow_infinity=False)))


@given(
    kept=st.lists(st.integers(0, 2**32 - 1), max_size=5),
    start=st.integers(0, 2**40),
    parts=st.lists(judgements(), max_size=4),
    number=st.integers(),
)
def test_what_is_put_comes_back_to_the_bit(
    shared: EvaluationStore, kept: list[int], start: int, parts: list[Judged], number: int
) -> None:
    context = shared.within({"number": number, "kept": kept, "start": start, "parts": str(parts)})
    before = context.count()
    context.put(kept, start, parts)
    assert context.count() in (before + len(parts), before)  # an example may come twice
    found = context.get(kept, start, start + len(parts) + 1)
    assert len(found) == len(parts) + 1
    assert found.pop() is None
    assert all(same(f, p) for f, p in zip(found, parts, strict=True))


def test_another_connection_reads_it_and_it_outlives_the_store(path: Path) -> None:
    fill(path, 5)
    assert known(path, 6) == [0, 1, 2, 3, 4]
    with EvaluationStore(path) as a, EvaluationStore(path) as b:
        a.within(TASK).put((9,), 0, [judged(9)])
        assert same(b.within(TASK).get((9,), 0, 1)[0], judged(9))


def test_arrays_that_come_back_can_be_written_to(shared: EvaluationStore) -> None:
    context = shared.within({"test": "writable"})
    context.put((1,), 0, [judged(1)])
    (found,) = context.get((1,), 0, 1)
    assert found is not None
    found.values[:] = 0  # torch.from_numpy warns of arrays that cannot be


def test_a_range_tells_known_batches_from_unknown_ones(shared: EvaluationStore) -> None:
    context = shared.within({"test": "range"})
    context.put((3, 4), 2, [judged(2), judged(3)])
    context.put((3, 4), 5, [judged(5)])
    context.put((3, 5), 4, [judged(0)])  # another plan's
    found = context.get((3, 4), 1, 7)
    assert [None if part is None else int(part.seconds) for part in found] == [None, 2, 3, None, 5, None]
    assert context.get((3, 4), 4, 4) == []
    assert [len(context.get(kept, 2, 4)) for kept in [(3,), (3, 4, 0), (4, 3)]] == [2, 2, 2]
    assert not any(context.get((3,), 0, 9) + context.get((3, 4, 0), 0, 9) + context.get((4, 3), 0, 9))


def test_the_first_that_was_put_stands(shared: EvaluationStore) -> None:
    context = shared.within({"test": "first"})
    context.put((1,), 0, [judged(1)])
    context.put(np.array([1]), 0, [judged(7), judged(8)])  # type: ignore[arg-type]
    assert [part.seconds for part in context.get([1], 0, 2) if part] == [1, 8]
    assert context.count() == 2


def test_contexts_are_separate_and_say_what_they_are(path: Path) -> None:
    with EvaluationStore(path) as store:
        store.within({"a": 1, "b": {"c": [2.5, None], "d": "ü"}}).put((1,), 0, [judged(1)])
        assert store.within({"b": {"d": "ü", "c": (2.5, None)}, "a": 1}).count() == 1, "the order of keys is no matter"
        others = [{"a": 2, "b": 1}, {"a": 1}, {}, {"a": True, "b": {"c": [2.5, None], "d": "ü"}}]
        assert [store.within(other).count() for other in others] == [0, 0, 0, 0]
        assert store.within(others[0]).get((1,), 0, 1) == [None]
        store.within(others[1]).put((1,), 0, [judged(2)])
        assert same(store.within({"a": 1}).get((1,), 0, 1)[0], judged(2))
    rows = sqlite3.connect(path)
    descriptions = [json.loads(text) for (text,) in rows.execute("SELECT description FROM contexts ORDER BY id")]
    rows.close()
    assert descriptions == [
        {"a": 1, "b": {"c": [2.5, None], "d": "ü"}, "code": code_digest()},
        {"a": 1, "code": code_digest()},
    ]


@pytest.mark.parametrize("description", [{"a": float("nan")}, {"a": object()}, {"a": np.float32(1)}, {"a": {1, 2}}])
def test_a_context_is_described_in_json(shared: EvaluationStore, description: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="finite JSON values"):
        shared.within(description)


FLOATS, INTEGERS = np.ones((4, 2), np.float32), np.ones(2, np.int32)


@pytest.mark.parametrize(
    ("kept", "start", "part", "message"),
    [
        ((-1,), 0, judged(1), r"\[0, 2³²\), got \(-1,\)"),
        ((2**32,), 0, judged(1), r"\[0, 2³²\)"),
        ((0.5,), 0, judged(1), r"\[0, 2³²\)"),
        ((1,), -1, judged(1), "numbered from 0, got -1"),
        ((1,), 0, Judged(FLOATS.astype(np.float64), INTEGERS, 1.0), "got float64"),  # type: ignore[arg-type]
        ((1,), 0, Judged(FLOATS, INTEGERS.astype(np.int64), 1.0), "and int64"),  # type: ignore[arg-type]
        ((1,), 0, Judged(FLOATS[:3], INTEGERS, 1.0), r"got float32 \[3, 2\]"),
        ((1,), 0, Judged(FLOATS, INTEGERS[:1], 1.0), r"int32 \[1\]"),
        ((1,), 0, Judged(FLOATS, INTEGERS.reshape(2, 1), 1.0), r"int32 \[2, 1\]"),
        ((1,), 0, Judged(FLOATS, INTEGERS, float("nan")), "finite and at least 0, got nan"),
        ((1,), 0, Judged(FLOATS, INTEGERS, float("inf")), "finite"),
        ((1,), 0, Judged(FLOATS, INTEGERS, -0.5), "at least 0"),
    ],
)
def test_what_cannot_be_stored_is_refused_whole(
    shared: EvaluationStore, kept: Sequence[int], start: int, part: Judged, message: str
) -> None:
    context = shared.within({"test": "refused"})
    with pytest.raises(ValueError, match=message):
        context.put(kept, start, [judged(1), part])
    assert context.count() == 0


def test_a_closed_store_says_so(path: Path) -> None:
    with EvaluationStore(path) as store:
        context = store.within(TASK)
    store.close()
    with pytest.raises(ValueError, match=r"store\.sqlite was closed"):
        context.put((1,), 0, [judged(1)])


def test_the_working_folder_may_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with EvaluationStore(Path(path.name)) as store:
        (path.parent / "elsewhere").mkdir()
        monkeypatch.chdir(path.parent / "elsewhere")
        store.within(TASK).put((1, 1), 0, [judged(1)])
    assert known(path, 2) == [1]


# many at once


def test_importing_the_store_leaves_torch_alone() -> None:
    assert finish(start("print('torch' in sys.modules)", "unused"))[0] == "False\n"


def test_four_processes_lose_no_outcome(path: Path) -> None:
    program = """
    worker, go = int(sys.argv[2]), Path(sys.argv[3])
    print("ready", flush=True)
    wait_for(go)
    for part in range(5):  # the last to close removes the write-ahead log, while others may be opening
        with EvaluationStore(path) as store:
            context = store.within({"task": "digits", "criterion": "l1"})
            for number in range(50 * part, 50 * (part + 1)):
                context.put((number, worker), 0, [judged(number), judged(number + 1)])
                context.put((number, 9), worker, [judged(number)] * 2)  # of which every other writes one too
    """
    go = path.with_name("go")
    workers = [start(_dedent(program), path, worker, go, expect="ready") for worker in range(4)]
    go.touch()
    for worker in workers:
        assert "WARNING" not in finish(worker)[1]
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        for number, worker in itertools.product(range(250), range(4)):
            found = context.get((number, worker), 0, 2)
            assert same(found[0], judged(number))
            assert same(found[1], judged(number + 1))
        for number in range(250):
            assert all(same(part, judged(number)) for part in context.get((number, 9), 0, 5))
        assert context.count() == 250 * (4 * 2 + 5)
    assert not asides(path)


@pytest.mark.parametrize("after", [1, 57])
def test_a_killed_process_loses_nothing_that_it_has_put(path: Path, after: int) -> None:
    program = """
    context = EvaluationStore(path).within({"task": "digits", "criterion": "l1"})
    for number in range(10**6):
        context.put((number, 1), 0, [judged(number)])
        print(number, flush=True)
    """
    process = start(_dedent(program), path)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()  # `communicate` would not see what `readline` has buffered
    process.communicate()
    told += [int(line) for line in rest.splitlines()[: rest.count("\n")]]
    assert known(path, told[-1] + 1) == told == list(range(told[-1] + 1))
    assert not asides(path)


def test_threads_share_a_store(path: Path) -> None:
    with EvaluationStore(path) as store:
        context = store.within(TASK)

        def write(first: int) -> None:
            for number in range(first, first + 50):
                context.put((number, 1), 0, [judged(number)])

        threads = [threading.Thread(target=write, args=(50 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert context.count() == 200
    assert known(path, 200) == list(range(200))


# the code that judged


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the sources that count."""
    for room in CODE:
        shutil.copytree(PACKAGE / room, tmp_path / "copy" / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


@pytest.mark.parametrize("room", CODE)
def test_the_key_takes_in_the_code_that_judges(
    room: str, package: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, 1)
    assert code_digest(package) == code_digest(), "the same sources elsewhere"
    source = next(file for file in sorted((package / room).rglob("*.py")) if file.stat().st_size)
    source.write_text(source.read_text().replace("return", "return  ", 1) + "\n")
    code_digest.cache_clear()
    edited = code_digest(package)
    assert edited != code_digest()
    monkeypatch.setattr("autoprune.evaluation.store.code_digest", lambda: edited)
    assert known(path, 1) == [], "what other code has judged is judged again"


def test_a_source_that_moves_or_goes_changes_the_digest(package: Path) -> None:
    digests = {code_digest(package)}
    (package / "repair" / "repair.py").rename(package / "repair" / "renamed.py")
    code_digest.cache_clear()
    digests.add(code_digest(package))
    (package / "repair" / "renamed.py").unlink()
    code_digest.cache_clear()
    digests.add(code_digest(package))
    assert len(digests) == 3
    shutil.rmtree(package / "repair")
    code_digest.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"evaluation\.store"):
        code_digest(package)


# damage


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.touch()
    fill(path, 2)
    assert known(path, 3) == [0, 1]
    assert not asides(path)


PLANS = 300
PAGE = 4096  # bytes; the definitions of tables are in the first one


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of PLANS plans, which is only copied."""
    path = tmp_path_factory.mktemp("whole") / "store.sqlite"
    fill(path, PLANS)
    assert known(path, PLANS) == list(range(PLANS))
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.sqlite", "store.sqlite.lock"]
    return path


@pytest.fixture
def whole(whole_file: Path) -> bytes:
    return whole_file.read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "garbage page", "a few bytes", "no database"])
def test_a_damaged_file_is_set_aside_and_the_run_says_so(
    damage: str, path: Path, whole: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    middle = len(whole) // 2 // PAGE * PAGE
    content = {
        "truncated": whole[:middle],
        "garbage page": whole[:middle] + b"\xa5" * PAGE + whole[middle + PAGE :],
        "a few bytes": whole[:511],
        "no database": b"notes of mine\n" * 100,
    }[damage]
    path.write_bytes(content)
    assert known(path, PLANS) == []
    (aside,) = asides(path)
    assert aside.read_bytes() == content
    assert str(aside) in caplog.text
    assert "judged again" in caplog.text
    fill(path, 3)
    assert known(path, 4) == [0, 1, 2]
    assert len(asides(path)) == 1


@given(position=st.integers(0, 2**20 - 1), bit=st.integers(0, 7))
@example(position=18, bit=0)  # the format's version: SQLite takes the file for read-only
@example(position=47, bit=3)  # the schema's format: an error of SQLite's, but no corruption
@example(position=3672, bit=7)  # the definition of a table, no longer in UTF-8
@example(position=3974, bit=0)  # the definition of a table, now another one
def test_after_any_flipped_bit_there_is_a_store_or_an_error_with_the_way_out(
    tmp_path_factory: pytest.TempPathFactory, whole_file: Path, position: int, bit: int
) -> None:
    path, flipped = tmp_path_factory.mktemp("flipped") / "store.sqlite", bytearray(whole_file.read_bytes())
    flipped[position % len(flipped)] ^= 1 << bit
    path.write_bytes(flipped)
    refusal = None
    try:
        with EvaluationStore(path) as store:
            context = store.within(TASK)
            for number in range(0, PLANS, 10):
                context.get((number, 1), 0, 1)
            context.put((PLANS, 2), 0, [judged(1)])
            assert same(context.get((PLANS, 2), 0, 1)[0], judged(1))
    except (ValueError, OSError) as error:  # as something else's, or one that may not be written to
        refusal = str(error)
    if refusal is not None:
        assert position % len(flipped) < PAGE, "only the header and the definitions of its tables say so"
        assert "evaluation.store" in refusal
        assert path.read_bytes() == flipped
    for file in path.parent.iterdir():
        file.unlink()


def test_damage_that_is_met_in_a_row_sets_the_file_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(path, 3)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE judged SET numbers = x'00' WHERE kept = x'0100000001000000'")
    connection.commit()
    connection.close()
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        assert same(context.get((2, 1), 0, 1)[0], judged(2))
        assert context.get((1, 1), 0, 1) == [None]
    assert len(asides(path)) == 1
    assert "a row is not as it was written" in caplog.text


def test_two_processes_that_find_damage_at_once_set_the_file_aside_once(path: Path, whole: bytes) -> None:
    program = """
    worker, go = int(sys.argv[2]), Path(sys.argv[3])
    print("ready", flush=True)
    wait_for(go)
    with EvaluationStore(path) as store:
        context = store.within({"task": "digits", "criterion": "l1"})
        for number in range(100 * worker, 100 * worker + 100):
            context.put((number, 1), 0, [judged(number)])
    """
    path.write_bytes(whole[: len(whole) // 2])
    go = path.with_name("go")
    workers = [start(_dedent(program), path, worker, go, expect="ready") for worker in range(2)]
    go.touch()
    errors = "".join(finish(worker)[1] for worker in workers)
    assert errors.count("is damaged") == 1
    assert len(asides(path)) == 1
    assert known(path, 200) == list(range(200))


def test_others_follow_to_the_new_file(path: Path) -> None:
    fill(path, 10)
    with EvaluationStore(path) as finder, EvaluationStore(path) as writer, EvaluationStore(path) as reader:
        assert reader.within(TASK).count() == 10
        finder._open("as if it were damaged")
        writer.within(TASK).put((20, 1), 0, [judged(20)])
        assert same(reader.within(TASK).get((20, 1), 0, 1)[0], judged(20))
        assert same(finder.within(TASK).get((20, 1), 0, 1)[0], judged(20))
    assert known(path, 21) == [20]
    assert len(asides(path)) == 1


@pytest.mark.parametrize("removed", [[""], ["", "-wal", "-shm"]])
def test_a_file_that_is_removed_while_it_is_open_is_made_again(path: Path, removed: list[str]) -> None:
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        context.put((0, 1), 0, [judged(0)])
        for suffix in removed:
            path.with_name(path.name + suffix).unlink()
        context.put((1, 1), 0, [judged(1)])
        assert known(path, 2) == [1]
    assert known(path, 2) == [1]
    assert not asides(path)


# what is refused


def _foreign(path: Path, *, application: int = 0) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {application}")
    connection.execute("CREATE TABLE photographs (name TEXT)")
    connection.executemany("INSERT INTO photographs VALUES (?)", [(f"{number}.jpg" * 50,) for number in range(100)])
    connection.commit()
    connection.close()


@pytest.mark.parametrize("application", [0, 252006674])
def test_a_database_of_something_else_stays_as_it_is(path: Path, application: int) -> None:
    _foreign(path, application=application)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"store\.sqlite.*SQLite.*evaluation\.store"):
        EvaluationStore(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.sqlite", "store.sqlite.lock"]


def test_a_store_of_another_version_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    before = path.read_bytes()
    assert known(path, 1) == []
    (aside,) = asides(path)
    assert aside.read_bytes() == before
    assert "version 1" in caplog.text


def test_a_folder_that_cannot_be_written_to_says_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"file/store\.sqlite.*evaluation\.store"):
        EvaluationStore(tmp_path / "file" / "store.sqlite")
    (tmp_path / "store.sqlite").mkdir()
    with pytest.raises(OSError, match=r"store\.sqlite"):
        EvaluationStore(tmp_path / "store.sqlite")


def test_a_full_disk_says_the_way_out_and_costs_nothing_that_was_stored(path: Path) -> None:
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        context.put((0, 1), 0, [judged(0)])
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count = 20")  # SQLite then says what it says of a full disk
        with pytest.raises(OSError, match=r"store\.sqlite.*full.*evaluation\.store"):
            context.put((1, 1), 0, [judged(number, blocks=1000) for number in range(10)])
        assert context.count() == 1
        context.put((1, 1), 0, [judged(1)])
    assert known(path, 3) == [0, 1]


def _dedent(program: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in program.splitlines())
