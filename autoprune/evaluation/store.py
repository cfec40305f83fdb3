"""Judged batches on disk, shared by every run and process of a machine: what one has computed, all others read."""

import contextlib
import hashlib
import json
import logging
import math
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from autoprune.evaluation.outcome import Judged
from autoprune.source_digest import code_digest

try:
    import fcntl
except ImportError:  # not on Windows, which lets nobody rename a file that is open either
    fcntl = None  # type: ignore[assignment]

APPLICATION = 0x6170726E  # "aprn": what SQLite calls application_id, so that a file of something else is refused
SCHEMA = 2
WAIT_S = 60  # for another process's transaction
ATTEMPTS = 5  # at one transaction, while the file is being replaced or found damaged
WAY_OUT = "set evaluation.store to a file elsewhere, or to null to run without a store"
_SUFFIXES = ("", "-wal", "-shm", "-journal")  # the files of one database
_TABLES = """
    CREATE TABLE contexts (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, description TEXT NOT NULL);
    CREATE TABLE judged (context INTEGER NOT NULL, kept BLOB NOT NULL, batch INTEGER NOT NULL, samples BLOB NOT NULL,
        numbers BLOB NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (context, kept, batch)) WITHOUT ROWID;
"""
_OF_CONTEXT = "FROM judged WHERE context = (SELECT id FROM contexts WHERE key = ?)"
_GET = f"SELECT batch, samples, numbers, seconds {_OF_CONTEXT} AND kept = ? AND batch >= ? AND batch < ?"
_PUT_CONTEXT = "INSERT INTO contexts (key, description) VALUES (?, ?) ON CONFLICT DO NOTHING"
_PUT = "INSERT INTO judged VALUES ((SELECT id FROM contexts WHERE key = ?), ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
T = TypeVar("T")

_log = logging.getLogger(__name__)


class EvaluationStore:
    """A cache of every judged batch of every plan: one SQLite file that any number of processes use at once.

    Its folder must be on a local disk. A killed process loses nothing that `put` returned from; a power cut may lose
    the last transactions, never the file. A damaged file is set aside with a warning, and what was in it is judged
    again. A process may not go on with a store that it had open before it forked.

    >>> import tempfile
    >>> import numpy as np
    >>> with EvaluationStore(Path(tempfile.mkdtemp()) / "store.sqlite") as store:
    ...     context = store.within({"task": "digits"})
    ...     judged = Judged(np.ones((4, 2), np.float32), np.array([100, 50], np.int32), seconds=0.5)
    ...     context.put((8, 64), 0, [judged])
    ...     [batch.seconds if batch else None for batch in context.get((8, 64), 0, 2)]
    [0.5, None]
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it.

        Args:
            path: Of the SQLite file; its folder is made.

        Raises:
            ValueError: The file is a database of something else, which stays as it is.
            OSError: The file can't be read or written.
        """
        self.path = Path(path).resolve()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None  # of the file that is connected to
        self._open()

    def __reduce__(self) -> tuple[type["EvaluationStore"], tuple[Path]]:
        """A copy, in this process or another, is connected by itself."""
        return EvaluationStore, (self.path,)

    def within(self, description: Mapping[str, Any]) -> "Context":
        """Returns what was judged under the same circumstances, by the same code.

        Args:
            description: All that a judged number depends on beside the plan and `code_digest`, in finite JSON values.

        Raises:
            ValueError: The description is something else.
        """
        try:
            whole = {**description, "code": code_digest()}
            text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a context is described in finite JSON values, got {description}: {error}") from error
        return Context(self, hashlib.sha256(text.encode()).hexdigest(), text)

    def close(self) -> None:
        """Disconnects; may be called more than once."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Returns what `work` returns; it is done again where the file is damaged, or no longer stands at the path."""
        with self._lock:
            for _ in range(ATTEMPTS):
                if self._connection is None:
                    raise ValueError(f"the evaluation store {self.path} was closed; open it again")
                damage = None
                try:
                    result = work(self._connection)
                    if _identity(self.path) == self._identity:
                        return result
                except sqlite3.Error as error:
                    if _identity(self.path) == self._identity and not _is_damage(error):
                        raise self._explained(error) from error
                    damage = str(error)
                self._connection.close()
                self._open(damage)
        raise OSError(f"the evaluation store {self.path} was lost or damaged {ATTEMPTS} times in a row; {WAY_OUT}")

    def _open(self, damage: str | None = None) -> None:
        """Connects to a sound store. damage: what was noticed in the file that was connected to."""
        with self._locked():
            if damage is not None and _identity(self.path) == self._identity:  # else another process has replaced it
                self._set_aside(f"is damaged ({damage})")
            try:
                self._connection = self._connected()
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise self._explained(error) from error
                self._set_aside(f"is damaged ({error})")
                self._connection = self._connected()
            self._identity = _identity(self.path)

    def _connected(self) -> sqlite3.Connection:
        if not self.path.exists():  # what may stand beside it belongs to a file that was removed
            for suffix in _SUFFIXES[1:]:
                _beside(self.path, suffix).unlink(missing_ok=True)
        connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if application == version == 0 and pages <= 1:
                self._make_tables(connection)
            elif application != APPLICATION:
                raise ValueError(f"{self.path} is a SQLite file of something else, and stays as it is; {WAY_OUT}")
            elif version != SCHEMA:
                connection.close()
                self._set_aside(f"is of version {version}, and this autoprune's is {SCHEMA}")
                return self._connected()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection
        except BaseException:
            connection.close()
            raise

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        # Write-ahead logging: readers and one writer work at once, and a transaction waits for no disk.
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise OSError(f"the evaluation store {self.path} must be on a local disk; {WAY_OUT}")
        versions = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} {versions} COMMIT")

    def _set_aside(self, reason: str) -> None:
        """Renames the file and what SQLite keeps beside it. Needs the lock."""
        aside = self.path.with_name(f"{self.path.name}.aside-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}")
        for suffix in _SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                _beside(self.path, suffix).rename(_beside(aside, suffix))
        _log.warning(
            "the evaluation store %s %s; it was set aside as %s, and plans are judged again", self.path, reason, aside
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process opens, makes or replaces the store meanwhile."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _beside(self.path, ".lock").open("a") as lock:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            if error.filename is None:
                raise
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> OSError:
        code = getattr(error, "sqlite_errorname", type(error).__name__)
        return OSError(f"the evaluation store {self.path} can't be read or written: {error} ({code}); {WAY_OUT}")


@dataclass(frozen=True, slots=True)
class Context:
    """What was judged under the same circumstances by the same code."""

    store: EvaluationStore
    """Where judged batches are kept."""
    key: str
    """SHA-256 of the description."""
    description: str
    """The circumstances and the code's digest, as canonical JSON."""

    def get(self, kept: Sequence[int], start: int, stop: int) -> list[Judged | None]:
        """Returns how the plan was judged on batches start … stop - 1; None where that is not known.

        Args:
            kept: Units kept, per group.
            start: The first batch.
            stop: The batch after the last.
        """
        plan = _packed(kept)

        def read(connection: sqlite3.Connection) -> list[Judged | None]:
            rows = connection.execute(_GET, (self.key, plan, start, stop)).fetchall()
            batches = {batch: _judged(*columns) for batch, *columns in rows}
            return [batches.get(batch) for batch in range(start, stop)]

        return self.store.transact(read)

    def put(self, kept: Sequence[int], start: int, judged: Sequence[Judged]) -> None:
        """All is on disk on return; a batch that is known already stays as it is.

        Args:
            kept: Units kept, per group.
            start: The batch of the first of `judged`; those that follow are of the batches after it.
            judged: How the plan was judged on each.

        Raises:
            ValueError: An array has another shape or type than Judged says; then nothing is stored.
            OSError: The file can't be written.
        """
        if start < 0:
            raise ValueError(f"batches are numbered from 0, got {start}")
        plan = _packed(kept)
        rows = [(self.key, plan, batch, *_columns(part)) for batch, part in enumerate(judged, start=start)]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_PUT_CONTEXT, (self.key, self.description))
                connection.executemany(_PUT, rows)

        self.store.transact(write)

    def count(self) -> int:
        """Returns how many judged batches are stored."""
        query = f"SELECT count(*) {_OF_CONTEXT}"
        return self.store.transact(lambda connection: int(connection.execute(query, (self.key,)).fetchone()[0]))


def _packed(kept: Sequence[int]) -> bytes:
    try:
        return struct.pack(f"<{len(kept)}I", *kept)
    except struct.error as error:
        raise ValueError(f"numbers of kept units must be in [0, 2³²), got {tuple(kept)}") from error


def _columns(judged: Judged) -> tuple[bytes, bytes, float]:
    values, samples, seconds = judged.values, judged.samples, float(judged.seconds)
    typed = values.dtype == np.float32 and samples.dtype == np.int32
    if not typed or samples.ndim != 1 or values.shape != (4, samples.size):
        raise ValueError(
            f"a judged batch has float32 values [4, blocks] and int32 samples [blocks], got {values.dtype} "
            f"{list(values.shape)} and {samples.dtype} {list(samples.shape)}"
        )
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"the seconds of a judged batch must be finite and at least 0, got {seconds}")
    return samples.astype("<i4", copy=False).tobytes(), values.astype("<f4", copy=False).tobytes(), seconds


def _judged(samples: bytes, numbers: bytes, seconds: float) -> Judged:
    if len(numbers) != 4 * len(samples):
        raise sqlite3.DatabaseError("a row is not as it was written")
    values = np.frombuffer(numbers, "<f4").reshape(4, -1).astype(np.float32)
    return Judged(values, np.frombuffer(samples, "<i4").astype(np.int32), seconds)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at the path: its number stays its own as long as any process has it open."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_damage(error: sqlite3.Error) -> bool:
    """Also what has no code: our own verdict on a check, and statements that are right but fail on a broken schema."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
