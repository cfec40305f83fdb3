"""Files and folders that appear whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"  # how the name ends of what is being written, and of what a killed process left


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """What the block writes to the yielded path stands at `path` once the block ends, and nothing of it if it raises.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "cells" / "a.json"
    >>> with atomic_write(target) as partial:
    ...     _ = partial.write_text("{}")
    >>> target.read_text()
    '{}'

    Args:
        path: A file, which is replaced, or a folder, which must not exist yet. The folder it lies in is made.
        durable: A file is on the disk, and not only with the operating system, before it stands at `path`.

    Yields:
        A path in the same folder that no other process uses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        if durable:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.filename in (partial, str(partial)) and error.filename2 is None:
            error.filename = str(path)  # the other name says nothing to a reader
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # which would hide what went wrong in the block
            partial.unlink(missing_ok=True)
