"""The evaluation store's file: opened, made, checked, and rebuilt where it is damaged."""

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from autoprune.evaluation.stored import PUT, PUT_CONTEXT, DamagedError, parsed

try:
    import fcntl
except ImportError:  # not on Windows, which lets nobody rename a file that is open either
    fcntl = None  # type: ignore[assignment]

APPLICATION = 0x6170726E  # "aprn": what SQLite calls application_id, so that a file of something else is refused
SCHEMA = 1
CHECKED_BYTES = 64 * 2**20  # a file up to this size is checked whole when it is opened, a larger one row by row
PATIENCE_S = 60  # how long to wait for another process's transaction
WAY_OUT = "set evaluation.store to a file elsewhere, or to null to run without a store"
_TABLES = (
    "contexts (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, description TEXT NOT NULL)",
    "judged (context INTEGER NOT NULL, kept BLOB NOT NULL, batch INTEGER NOT NULL, samples BLOB NOT NULL, "
    "numbers BLOB NOT NULL, seconds REAL NOT NULL, checksum INTEGER NOT NULL, "
    "PRIMARY KEY (context, kept, batch)) WITHOUT ROWID",
)
_READ_CONTEXTS = "SELECT id, key, description FROM contexts ORDER BY id {0}"
_READ_ALL = "SELECT * FROM judged ORDER BY context {0}, kept {0}, batch {0}"

_log = logging.getLogger(__name__)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at the path: its number stays its own as long as any process has it open."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connected(path: Path, *, thorough: bool) -> sqlite3.Connection:
    """A connection to the store at the path, which is made where there is none. thorough: looks for damage."""
    if not _size(path):
        if _size(_beside(path, "-wal")):
            raise DamagedError("it is empty, though its write-ahead log is not")
        if not path.exists():  # what may stand beside it belongs to a file that was removed, and still be in use
            for suffix in _SUFFIXES[1:]:
                _beside(path, suffix).unlink(missing_ok=True)
    connection = _connect(str(path))
    try:
        if _is_new(connection, path):
            _write_ahead(connection, path)
            _make(connection)
        else:
            made = {sql for (sql,) in connection.execute("SELECT CAST(sql AS BLOB) FROM sqlite_master")}
            if any(f"CREATE TABLE {table}".encode() not in made for table in _TABLES):
                raise DamagedError("its tables are not those of a store")
            if thorough and _size(path) <= CHECKED_BYTES:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise DamagedError(" ".join(verdict.split()))
            _write_ahead(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            # these statements are right, so what SQLite calls an error in them is one of the file
            wrong = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR
            if wrong or is_damage(error, path):
                raise DamagedError(str(error)) from error
        raise
    return connection


def _connect(database: str) -> sqlite3.Connection:
    uri = database.startswith("file:")
    return sqlite3.connect(database, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False, uri=uri)


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether nothing is in the file yet. Raises ValueError where it is no store, or one of another version."""
    connection.execute("PRAGMA writable_schema = ON")  # so that a truncated file can be asked whose it is
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    new = application == version == 0 and connection.execute("PRAGMA page_count").fetchone()[0] <= 1
    connection.execute("PRAGMA writable_schema = OFF")
    if new:
        return True
    if application != APPLICATION:
        raise ValueError(f"{path} is a SQLite file of something else, and stays as it is; {WAY_OUT}")
    if version != SCHEMA:
        raise ValueError(
            f"{path} is an evaluation store of version {version}, and this autoprune reads version {SCHEMA}; "
            f"use the autoprune that made it, move it away, or {WAY_OUT}"
        )
    return False


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    """Lets readers and one writer work at once, and a transaction cost no wait for the disk."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:  # SQLite itself does not wait here
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise OSError(errno.ENOTSUP, f"the evaluation store {path} must be on a local disk; {WAY_OUT}")
    connection.execute("PRAGMA synchronous = NORMAL")


def _make(connection: sqlite3.Connection, *, damaged: Path | None = None) -> int:
    """Makes the tables, with what can be read of a damaged file; all or nothing. How many judged batches that is."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            connection.execute(f"CREATE TABLE {table}")
        if damaged is not None and _size(damaged):
            with contextlib.closing(_connect(f"{damaged.as_uri()}?mode=ro")) as old:
                _carry_over(old, connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        return int(connection.execute("SELECT count(*) FROM judged").fetchone()[0])


def _carry_over(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Copies the rows of a damaged file that can be read and whose checksums are right."""
    old.text_factory = lambda text: text.decode(errors="replace")
    with contextlib.suppress(sqlite3.Error):
        old.execute("PRAGMA writable_schema = ON")  # reads a file that is shorter than it says
    keys: dict[Any, str] = {}
    for number, key, description in _legible(old, _READ_CONTEXTS):
        if isinstance(description, str) and hashlib.sha256(description.encode()).hexdigest() == key:
            keys[number] = key
            new.execute(PUT_CONTEXT, (key, description))
    for number, *columns in _legible(old, _READ_ALL):
        with contextlib.suppress(DamagedError):
            if number in keys:
                parsed(keys[number], *columns)
                new.execute(PUT, (keys[number], *columns))


def _legible(connection: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """The rows before the first illegible one, and those behind the last."""
    for direction in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error):
            yield from connection.execute(query.format(direction))
            return


def rebuilt(path: Path, damage: str) -> sqlite3.Connection:
    """A connection to a new store at the path; the damaged one is set aside. Needs the lock."""
    aside = _set_aside(path)
    connection = _connect(str(path))
    try:
        _write_ahead(connection, path)
        saved = _make(connection, damaged=aside)
    except BaseException:
        connection.close()
        raise
    _log.warning(
        "the evaluation store %s was damaged (%s); it now stands at %s, and the %d judged batches that could be saved "
        "are in a new one; the others will be judged again",
        path, damage, aside, saved,
    )  # fmt: skip
    return connection


_SUFFIXES = ("", "-wal", "-shm", "-journal")  # the files of one database


def _set_aside(path: Path) -> Path:
    """Renames the file, and then what SQLite keeps beside it: alone, it is never taken for a whole one."""
    stamp = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2)))
    asides = (path.with_name(name) for name in names)
    aside = next(found for found in asides if not any(_beside(found, suffix).exists() for suffix in _SUFFIXES))
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(aside, suffix))
    return aside


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def locked(path: Path) -> TextIO:
    """While the file that is returned is open, no other process opens, makes or replaces the store."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _beside(path, ".lock").open("a")
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        return lock
    except OSError as error:
        message = f"the evaluation store {path} cannot be opened: {error.strerror}: {error.filename}; {WAY_OUT}"
        raise OSError(error.errno, message) from error


def is_damage(error: sqlite3.Error, path: Path) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    read_only = code == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK)  # its header says so, the system does not
    return read_only or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


_REASONS = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "the disk is full"),
    sqlite3.SQLITE_READONLY: (errno.EROFS, "it may not be written to"),
    sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "it cannot be opened"),
    sqlite3.SQLITE_PERM: (errno.EACCES, "it may not be read"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "the disk does not read or write"),
    sqlite3.SQLITE_BUSY: (errno.ETIMEDOUT, f"another process keeps it locked for longer than {PATIENCE_S} seconds"),
    sqlite3.SQLITE_PROTOCOL: (errno.ETIMEDOUT, "too many processes want it at once"),
}


def explained(error: sqlite3.Error, path: Path) -> Exception:
    """The same as an OSError that says what to do, where it is about the disk."""
    number, reason = _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, (0, ""))
    return OSError(number, f"the evaluation store {path}: {reason} ({error}); {WAY_OUT}") if number else error
