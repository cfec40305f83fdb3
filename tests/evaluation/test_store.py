import errno
import itertools
import json
import logging
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoprune.evaluation import store_file
from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.store import Context, EvaluationStore

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
    out, err = process.communicate(timeout=60)
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
    return [f for f in path.parent.glob(f"{path.name}.damaged-*") if not f.name.endswith(("-wal", "-shm", "-journal"))]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """From another process: closing a file drops all locks that this process holds on it, and SQLite may need them."""
    program = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(int(sys.argv[2])); f.write(bytes.fromhex(sys.argv[3]))"
    subprocess.run([sys.executable, "-S", "-c", program, str(path), str(offset), data.hex()], check=True)


def damage_row(path: Path, number: int, *, store: EvaluationStore | None = None) -> None:
    """Flips a bit among the numbers that `fill` put for a plan."""
    if store is not None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    blob = judged(number).values.tobytes()
    data = subprocess.run(["cat", path], check=True, capture_output=True).stdout
    assert data.count(blob) == 1
    place = data.index(blob) + 5
    overwrite(path, place, bytes([data[place] ^ 4]))


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


def test_seconds_come_back_without_a_sign(shared: EvaluationStore) -> None:
    context = shared.within({"test": "zero"})
    context.put((1,), 0, [judged(-0.0)])
    assert [str(part.seconds) for part in context.get((1,), 0, 1) if part] == ["0.0"]


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
    assert descriptions == [{"a": 1, "b": {"c": [2.5, None], "d": "ü"}}, {"a": 1}]


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


def test_four_processes_lose_none_of_ten_thousand_outcomes(path: Path) -> None:
    program = """
    worker, go = int(sys.argv[2]), Path(sys.argv[3])
    print("ready", flush=True)
    wait_for(go)
    for part in range(5):  # the last to close removes the write-ahead log, while others may be opening
        with EvaluationStore(path) as store:
            context = store.within({"task": "digits", "criterion": "l1"})
            for number in range(250 * part, 250 * (part + 1)):
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
        for number, worker in itertools.product(range(1250), range(4)):
            found = context.get((number, worker), 0, 2)
            assert same(found[0], judged(number))
            assert same(found[1], judged(number + 1))
        for number in range(1250):
            assert all(same(part, judged(number)) for part in context.get((number, 9), 0, 5))
        assert context.count() == 1250 * (4 * 2 + 5)
    assert not asides(path)


@pytest.mark.parametrize("after", [1, 57, 200])
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


def test_a_context_can_be_sent_to_another_process(path: Path) -> None:
    with EvaluationStore(path) as store:
        store.within(TASK).put((1, 1), 0, [judged(1)])
        copy: Context = pickle.loads(pickle.dumps(store.within(TASK)))
        assert copy.count() == 1
        assert copy.store is not store
        copy.store.close()


def test_a_forked_process_has_a_connection_of_its_own(path: Path) -> None:
    program = """
    import gc
    EvaluationStore(path)  # one that is gone when the process forks
    gc.collect()
    store = EvaluationStore(path)
    context = store.within({"task": "digits", "criterion": "l1"})
    context.put((0, 1), 0, [judged(0)])
    if os.fork() == 0:
        context.put((1, 1), 0, [judged(1)])
        os.write(1, b"forked\\n")
        wait_for(path.with_name("parent left"))
        for number in range(3, 40):
            context.put((number, 1), 0, [judged(number)])
        path.with_name("child done").touch()
        os._exit(0)
    wait_for(path.with_name("go"))
    context.put((2, 1), 0, [judged(2)])
    """
    parent = start(_dedent(program), path, expect="forked")
    path.with_name("go").touch()
    parent.wait(timeout=60)
    # the parent has closed the file, and here another process does: neither may take it for unused
    assert known(path, 40) == [0, 1, 2]
    path.with_name("parent left").touch()
    finish(parent)  # its pipes are open until the child ends too
    assert path.with_name("child done").exists()
    assert known(path, 40) == list(range(40))
    assert not asides(path)


# damage


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.touch()
    fill(path, 2)
    assert known(path, 3) == [0, 1]
    assert not asides(path)


PLANS = 300


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


@pytest.mark.parametrize("share", [0.02, 0.45, 0.77, 0.999])
def test_what_a_truncated_file_still_holds_is_carried_over(
    path: Path, whole: bytes, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(whole[: int(share * len(whole))])
    saved = known(path, PLANS)
    assert saved or share < 0.1
    assert len(saved) <= share * PLANS + 10
    (aside,) = asides(path)
    assert aside.read_bytes() == whole[: int(share * len(whole))]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for part in (f"the evaluation store {path} was damaged", str(aside), f"the {len(saved)} judged batches"):
        assert part in record.getMessage()
    fill(path, PLANS)
    assert known(path, PLANS) == list(range(PLANS))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("length", [2, 15, 16, 99, 100, 511, 4096])
def test_a_file_cut_to_less_than_its_tables_is_set_aside(path: Path, whole: bytes, length: int) -> None:
    path.write_bytes(whole[:length])
    assert known(path, 3) == []
    assert len(asides(path)) == 1
    fill(path, 3)
    assert known(path, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    "garbage", [b"xy", b"kept,score\n1,2\n" * 1000, bytes(5000), b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_what_is_no_database_is_set_aside_whole(path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(garbage)
    fill(path, 2)
    (aside,) = asides(path)
    assert aside.read_bytes() == garbage
    assert known(path, 2) == [0, 1]
    assert "the 0 judged batches" in caplog.text


def test_a_page_of_garbage_costs_its_rows_only(path: Path, whole: bytes) -> None:
    middle = len(whole) // 2 // 4096 * 4096
    path.write_bytes(whole[:middle] + b"\xa5" * 4096 + whole[middle + 4096 :])
    saved = known(path, PLANS)
    assert PLANS - 60 < len(saved) < PLANS
    assert len(asides(path)) == 1


@given(place=st.integers(0, 2**20 - 1), bit=st.integers(0, 7))
@example(place=18, bit=0)  # the format's version: SQLite takes the file for read-only
@example(place=47, bit=3)  # the schema's format: an error of SQLite's, but no corruption
@example(place=3672, bit=7)  # the definition of a table, no longer in UTF-8
def test_no_flipped_bit_makes_a_wrong_outcome(
    tmp_path_factory: pytest.TempPathFactory, whole_file: Path, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path, flipped = folder / "store.sqlite", bytearray(whole_file.read_bytes())
    place %= len(flipped)
    flipped[place] ^= 1 << bit
    path.write_bytes(flipped)
    refused, saved = "", []
    try:
        saved = known(path, PLANS)
    except ValueError as error:
        refused = str(error)
    if refused:  # as something else, or another version
        assert place < 100, "only the header says so"
        assert "evaluation.store" in refused
        assert path.read_bytes() == flipped
        return
    assert len(saved) >= PLANS - 60 or place < 4 * 4096  # the tables, and the root of the tree
    fill(path, PLANS)
    assert known(path, PLANS) == list(range(PLANS))
    for file in folder.iterdir():
        file.unlink()


def test_a_wrong_checksum_is_found_when_the_row_is_read(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(path, 20)
    damage_row(path, 7)
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        assert same(context.get((6, 1), 0, 1)[0], judged(6))
        assert not asides(path), "as a database it is sound"
        assert context.get((7, 1), 0, 1) == [None]
        assert len(asides(path)) == 1
        assert context.count() == 19
        context.put((7, 1), 0, [judged(7)])
    assert known(path, 20) == list(range(20))
    assert "the checksum of batch 0 of a plan is wrong" in caplog.text
    assert "the 19 judged batches" in caplog.text


def test_a_row_moved_to_another_plan_is_not_believed(path: Path) -> None:
    fill(path, 3)
    connection = sqlite3.connect(path)
    row = "samples, numbers, seconds, checksum FROM judged WHERE kept = x'0200000001000000' LIMIT 1"
    for target in ("x'0800000001000000', 0", "kept, 1"):  # plan (8, 1); another batch
        connection.execute(f"INSERT INTO judged SELECT context, {target}, {row}")
    connection.execute("UPDATE judged SET numbers = 'text' WHERE kept = x'0100000001000000'")
    connection.commit()
    connection.close()
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        assert context.get((8, 1), 0, 1) == [None]
        assert context.count() == 2
        assert [part and part.seconds for part in context.get((2, 1), 0, 2)] == [2, None]
        assert context.get((1, 1), 0, 1) == [None]
    assert len(asides(path)) == 1


def test_rows_that_are_only_in_the_write_ahead_log_are_saved_too(path: Path) -> None:
    program = """
    context = EvaluationStore(path).within({"task": "digits", "criterion": "l1"})
    for number in range(20):
        context.put((number, 1), 0, [judged(number)])
    os.kill(os.getpid(), 9)
    """
    fill(path, 1)
    start(_dedent(program), path).communicate()
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    overwrite(path, path.stat().st_size, b"\xff" * 100)
    with EvaluationStore(path) as store:
        store._open("as if it were damaged")
    assert known(path, 21) == list(range(20))
    (aside,) = asides(path)
    assert aside.with_name(f"{aside.name}-wal").exists()


def test_a_log_without_its_file_is_set_aside(path: Path) -> None:
    with EvaluationStore(path) as store:
        store.within(TASK).put((0, 1), 0, [judged(0)])
        log = subprocess.run(["cat", f"{path}-wal"], check=True, capture_output=True).stdout
    path.unlink()
    path.with_name(f"{path.name}-wal").write_bytes(log)
    assert known(path, 1) == []
    (aside,) = path.parent.glob("*.damaged-*-wal")
    assert aside.read_bytes() == log


def test_a_large_file_is_not_read_whole_and_still_not_believed(
    path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "CHECKED_BYTES", 0)
    page = len(whole) // 2 // 4096 * 4096
    for damaged in (whole[: len(whole) // 2], whole[:page] + bytes(4096) + whole[page + 4096 :]):
        path.write_bytes(damaged)
        assert 0 < len(known(path, PLANS)) < PLANS
        path.unlink()
    assert len(asides(path)) == 2, "two in one second have different names"


def test_two_processes_that_find_damage_at_once_set_the_file_aside_once(path: Path, whole: bytes) -> None:
    program = """
    worker, go = int(sys.argv[2]), Path(sys.argv[3])
    print("ready", flush=True)
    wait_for(go)
    with EvaluationStore(path) as store:
        context = store.within({"task": "digits", "criterion": "l1"})
        for number in range(1000 + 100 * worker, 1100 + 100 * worker):
            context.put((number, 1), 0, [judged(number)])
    """
    path.write_bytes(whole[: len(whole) // 2])
    go = path.with_name("go")
    workers = [start(_dedent(program), path, worker, go, expect="ready") for worker in range(2)]
    go.touch()
    errors = "".join(finish(worker)[1] for worker in workers)
    assert errors.count("was damaged") == 1
    assert len(asides(path)) == 1
    found = known(path, 1200)
    assert found[-200:] == list(range(1000, 1200))
    assert len(found) > 250, "what was saved is there besides"


def test_others_follow_to_the_new_file(path: Path) -> None:
    fill(path, 10)
    stores = [EvaluationStore(path) for _ in range(4)]
    with stores[0] as finder, stores[1] as writer, stores[2] as reader, stores[3] as late:
        assert reader.within(TASK).count() == 10
        damage_row(path, 4, store=finder)
        assert finder.within(TASK).get((4, 1), 0, 1) == [None]
        writer.within(TASK).put((20, 1), 0, [judged(20)])
        assert late.within(TASK).get((4, 1), 0, 1) == [None], "it finds the damage in the old file"
        assert len(asides(path)) == 1
        assert same(reader.within(TASK).get((20, 1), 0, 1)[0], judged(20))
        assert same(finder.within(TASK).get((20, 1), 0, 1)[0], judged(20))
        assert reader.within(TASK).count() == 10
    assert known(path, 21) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 20]
    assert len(asides(path)) == 1


def test_nothing_is_lost_while_the_file_is_replaced_again_and_again(path: Path) -> None:
    program = """
    worker = int(sys.argv[2])
    context = EvaluationStore(path).within({"task": "digits", "criterion": "l1"})
    print("ready", flush=True)
    number = 0
    while not path.with_name("stop").exists():
        context.put((number, worker), 0, [judged(number)])
        number += 1
        path.with_name(f"written-{worker}").write_text(str(number))
    print(number, flush=True)
    """
    workers = [start(_dedent(program), path, worker, expect="ready") for worker in range(2)]
    written = [path.with_name(f"written-{worker}") for worker in range(2)]
    with EvaluationStore(path) as store:
        for _ in range(8):
            for file in written:  # else one put may meet more files in a row than a store has patience for
                file.unlink(missing_ok=True)
                deadline = time.monotonic() + 60
                while not file.exists() and time.monotonic() < deadline:
                    time.sleep(0.001)
            store.within(TASK).count()
            store._open("as if it were damaged")
    path.with_name("stop").touch()
    numbers = [int(finish(worker)[0]) for worker in workers]
    assert min(numbers) > 0
    assert len(asides(path)) == 8
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        for worker, number in enumerate(numbers):
            lost = [i for i in range(number) if not same(context.get((i, worker), 0, 1)[0], judged(i))]
            assert not lost, f"worker {worker} lost {len(lost)} of {number}"


def test_a_file_that_is_removed_while_it_is_open_is_made_again(path: Path) -> None:
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        context.put((0, 1), 0, [judged(0)])
        path.unlink()  # what SQLite keeps beside it stays
        context.put((1, 1), 0, [judged(1)])
        assert known(path, 2) == [1]
    assert known(path, 2) == [1]


@pytest.mark.parametrize("removed", [[""], ["", "-wal"], ["", "-wal", "-shm"]])
def test_a_process_that_has_a_removed_file_open_does_no_harm_to_the_new_one(path: Path, removed: list[str]) -> None:
    program = """
    context = EvaluationStore(path).within({"task": "digits", "criterion": "l1"})
    for number in range(100):
        context.put((number, 1), 0, [judged(number)])
    print("open", flush=True)
    wait_for(path.with_name("go"))
    for number in range(100, 200):
        context.put((number, 1), 0, [judged(number)])
    """
    process = start(_dedent(program), path, expect="open")
    for suffix in removed:  # the rest of what SQLite keeps stays, and is in use
        path.with_name(path.name + suffix).unlink()
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        for number in range(40):
            context.put((number, 1), 0, [judged(number)])
        path.with_name("go").touch()
        finish(process)
        for number in range(40, 60):
            context.put((number, 1), 0, [judged(number)])
    assert known(path, 200) == [*range(60), *range(100, 200)]
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
@pytest.mark.parametrize("cut", [0, 5000])
def test_a_database_of_something_else_stays_as_it_is(path: Path, application: int, cut: int) -> None:
    _foreign(path, application=application)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"store\.sqlite is a SQLite file of something else.*evaluation\.store"):
        EvaluationStore(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.sqlite", "store.sqlite.lock"]


def test_a_store_of_another_version_stays_as_it_is(path: Path) -> None:
    fill(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"store\.sqlite is an evaluation store of version 2.* reads version 1; use"):
        EvaluationStore(path)
    assert path.read_bytes() == before
    assert not asides(path)


def test_a_folder_that_cannot_be_written_to_says_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        OSError, match=r"file/store\.sqlite cannot be opened.*evaluation\.store to a file elsewhere, or"
    ):
        EvaluationStore(tmp_path / "file" / "store.sqlite")
    (tmp_path / "store.sqlite").mkdir()
    with pytest.raises(OSError, match=r"store\.sqlite: it cannot be opened.*null to run without a store"):
        EvaluationStore(tmp_path / "store.sqlite")


def test_a_full_disk_says_the_way_out_and_costs_nothing_that_was_stored(path: Path) -> None:
    with EvaluationStore(path) as store:
        context = store.within(TASK)
        context.put((0, 1), 0, [judged(0)])
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count = 20")  # SQLite then says what it says of a full disk
        with pytest.raises(OSError, match=r"store\.sqlite: the disk is full.*evaluation\.store") as caught:
            context.put((1, 1), 0, [judged(number, blocks=1000) for number in range(10)])
        assert caught.value.errno == errno.ENOSPC
        assert context.count() == 1
        context.put((1, 1), 0, [judged(1)])
    assert known(path, 3) == [0, 1]


def test_a_disk_that_does_not_write_says_so_and_costs_nothing_that_was_stored(path: Path) -> None:
    program = """
    import resource
    context = EvaluationStore(path).within({"task": "digits", "criterion": "l1"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        for number in range(10**6):
            context.put((number, 1), 0, [judged(number)])
    except OSError as error:
        print(number, error)
    """
    out, _ = finish(start(_dedent(program), path))
    number, _, message = out.partition(" ")
    assert f"{path}: the disk does not" in message
    assert "null to run without a store" in message
    assert int(number) > 0
    assert known(path, int(number) + 1)[: int(number)] == list(range(int(number)))


def _dedent(program: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in program.splitlines())
