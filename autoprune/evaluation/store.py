"""Judged batches on disk, shared by every run and process of a machine: what one has computed, all others read."""

import errno
import hashlib
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.store_file import WAY_OUT, connected, explained, identity, is_damage, locked, rebuilt
from autoprune.evaluation.stored import PUT, PUT_CONTEXT, DamagedError, as_row, packed, parsed

ATTEMPTS = 5  # how often one transaction is tried while the file is being replaced or found damaged

_OF_CONTEXT = "FROM judged WHERE context = (SELECT id FROM contexts WHERE key = ?)"
_GET = f"SELECT batch, samples, numbers, seconds, checksum {_OF_CONTEXT} AND kept = ? AND batch >= ? AND batch < ?"
T = TypeVar("T")


class EvaluationStore:
    """Every judged batch of every plan, in one SQLite file that any number of processes read and write at once.

    Its folder must be on a local disk. A killed process loses nothing that `put` returned from; a power cut may lose
    the last transactions, never the file. A damaged file is set aside and made anew, with what can still be read of
    it; processes that have the old one open follow. A row whose checksum is wrong is never returned.

    >>> import tempfile
    >>> import numpy as np
    >>> with EvaluationStore(Path(tempfile.mkdtemp()) / "store.sqlite") as store:
    ...     context = store.within({"task": "digits"})
    ...     judged = Judged(np.ones((4, 2), np.float32), np.array([100, 50], np.int32), seconds=0.5)
    ...     context.put((8, 64), 0, [judged])
    ...     [found.seconds if found else None for found in context.get((8, 64), 0, 2)]
    [0.5, None]
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises ValueError for a file of something else or of another version."""
        self.path = Path(path).resolve()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._closed = False
        self._lock = threading.RLock()
        self._open()
        if hasattr(os, "register_at_fork"):
            # SQLite's locks do not survive a fork, so no connection may cross one; both sides connect again.
            release = _while_it_lives(self._after_fork)
            before = _while_it_lives(self._before_fork)
            os.register_at_fork(before=before, after_in_parent=release, after_in_child=release)

    def within(self, description: Mapping[str, Any]) -> "Context":
        """What was judged under the same circumstances: `description`, in JSON's values, says all that they are."""
        try:
            text = json.dumps(dict(description), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a context is described in finite JSON values, got {description}: {error}") from error
        return Context(self, hashlib.sha256(text.encode()).hexdigest(), text)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["EvaluationStore"], tuple[Path]]:
        return EvaluationStore, (self.path,)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns. It is done again where the file turns out damaged, or no longer stands at the path."""
        with self._lock:
            for _ in range(ATTEMPTS):
                if self._closed:
                    raise ValueError(f"the evaluation store {self.path} was closed; open it again")
                connection, damage = self._connection or self._open(), None
                try:
                    done = work(connection)
                    if identity(self.path) == self._file:
                        return done
                except DamagedError as error:
                    damage = str(error)
                except sqlite3.Error as error:
                    if not is_damage(error, self.path):
                        raise explained(error, self.path) from error
                    damage = str(error)
                self._open(damage)
        raise OSError(errno.EIO, f"{self.path} was lost or damaged {ATTEMPTS} times in a row; {WAY_OUT}")

    def _open(self, damage: str | None = None) -> sqlite3.Connection:
        """Connects to the file at the path, made or rebuilt if need be. damage: what was found in the file so far."""
        old, self._connection = self._connection, None
        try:
            with locked(self.path):
                standing = identity(self.path)
                try:
                    if damage is not None and standing == self._file:  # else another process has replaced it by now
                        raise DamagedError(damage)
                    connection = connected(self.path, thorough=standing != self._file)
                except DamagedError as error:
                    connection = rebuilt(self.path, str(error))
                self._connection, self._file = connection, identity(self.path)
                return connection
        except sqlite3.Error as error:
            raise explained(error, self.path) from error
        finally:
            if old is not None:
                old.close()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _before_fork(self) -> None:
        self._lock.acquire()  # no other thread is in a transaction, nor connects, until the fork is done
        self._disconnect()

    def _after_fork(self) -> None:
        self._lock.release()


@dataclass(frozen=True, slots=True)
class Context:
    """What was judged under the same circumstances. key: sha256 of the description, which is canonical JSON."""

    store: EvaluationStore
    key: str
    description: str

    def get(self, kept: Sequence[int], start: int, stop: int) -> list[Judged | None]:
        """How the plan was judged on batches start … stop − 1; None where that is not known."""
        plan = packed(kept)

        def read(connection: sqlite3.Connection) -> list[Judged | None]:
            rows = connection.execute(_GET, (self.key, plan, start, stop)).fetchall()
            found = {row[0]: parsed(self.key, plan, *row) for row in rows}
            return [found.get(batch) for batch in range(start, stop)]

        return self.store._transact(read)

    def put(self, kept: Sequence[int], start: int, judged: Sequence[Judged]) -> None:
        """Stores how the plan was judged on batches start, start + 1, …; all are on disk on return.

        A batch that is known already stays as it is.
        """
        if start < 0:
            raise ValueError(f"batches are numbered from 0, got {start}")
        plan = packed(kept)
        rows = [as_row(self.key, plan, batch, part) for batch, part in enumerate(judged, start=start)]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(PUT_CONTEXT, (self.key, self.description))
                connection.executemany(PUT, rows)

        self.store._transact(write)

    def count(self) -> int:
        """How many judged batches are known."""
        count = f"SELECT count(*) {_OF_CONTEXT}"
        return self.store._transact(lambda connection: int(connection.execute(count, (self.key,)).fetchone()[0]))


def _while_it_lives(method: Callable[[], None]) -> Callable[[], None]:
    """Calls the method as long as its object exists: what is registered with the system stays registered."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        alive = weak()
        if alive is not None:
            alive()

    return call
