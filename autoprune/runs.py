"""A run's folder: everything that a run has to say, in files that need no server and no pickle."""

import contextlib
import errno
import importlib.metadata
import json
import math
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.files import atomic_write

RUN_FILE = "run.json"  # what makes a folder a run folder
JOB = ".hydra"  # where a command that writes a run keeps its overrides, from its first moment on
PACKAGES = (
    "autoprune",
    "torch",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "sb3-contrib",
    "safetensors",
    "onnx",
    "onnxruntime",
    "hydra-core",
    "wandb",
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Reads and writes one run's files. JSON appears whole or not at all; a line counts once its newline is written.

    >>> import tempfile
    >>> folder = RunFolder.create(Path(tempfile.mkdtemp()) / "run")
    >>> folder.append("history.jsonl", {"evaluation": 1, "score": float("nan")})
    >>> folder.read_lines("history.jsonl")
    [{'evaluation': 1, 'score': None}]
    """

    path: Path
    """Of the folder."""

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Returns a folder for a new run, which is made.

        Raises:
            FileExistsError: Another run's files stand there.
        """
        path = Path(path)
        cls.check_free(path)
        with _disk(path, safe="nothing was written yet"):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @classmethod
    def check_free(cls, path: Path) -> None:
        """Raises FileExistsError where a run's files stand in the folder, before anything is prepared for another."""
        if (path / RUN_FILE).exists():
            raise FileExistsError(
                f"{path} holds a run already; choose another folder, or remove this one (`autoprune show {path}` shows "
                f"it, `{resume_command(path)}` goes on where it was cut off)"
            )

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Returns the folder of a run that was started before.

        Raises:
            FileNotFoundError: It is no such folder.
        """
        path = Path(path)
        if not path.is_dir():
            why = "it is a file" if path.is_file() else "there is no such folder"
            raise FileNotFoundError(f"{path} is not a run folder: {why}. {_WHAT_IT_IS}")
        if not (path / RUN_FILE).is_file():
            if (path / JOB).is_dir():
                raise FileNotFoundError(
                    f"{path} has no {RUN_FILE}: its command ended while the task was prepared, before the first "
                    f"evaluation, so there is nothing to go on with. Give the same command again, into this folder if "
                    f"you like; its overrides stand in {path / JOB / 'overrides.yaml'}"
                )
            raise FileNotFoundError(f"{path} is not a run folder: it has no {RUN_FILE}. {_WHAT_IT_IS}")
        return cls(path)

    def has(self, name: str) -> bool:
        """Returns whether the file is there."""
        return (self.path / name).is_file()

    def write_json(self, name: str, value: Any) -> None:
        """The file holds the value; what is NaN or infinite becomes null. A reader sees the old value or the new.

        Args:
            name: The file's name.
            value: What JSON can hold, NumPy's numbers and arrays included.
        """
        self.write_text(name, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """The file holds the text; a reader, or a crash, meets the old text or the new.

        Raises:
            OSError: The disk is full; the old file is untouched.

        Args:
            name: The file's name.
            text: What is written.
        """
        file = self.path / name
        with _disk(file, safe="files written before are untouched"), atomic_write(file, durable=True) as partial:
            partial.write_text(text, encoding="utf-8")

    def read_json(self, name: str) -> Any:
        """Returns the file's value.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no JSON.
        """
        file = self.path / name
        if not file.is_file():
            raise FileNotFoundError(f"the run folder {self.path} has no {name}; the run may have ended before it")
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is damaged: it is not valid JSON ({error})") from error

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """The file ends with this line, which is with the operating system, so that a killed process loses nothing.

        A line that a killed process left unfinished is gone.

        Raises:
            OSError: The disk is full; complete lines are safe.

        Args:
            name: The file's name.
            record: The line, in JSON's values.
        """
        file = self.path / name
        line = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n"
        safe = "every complete line in it is safe, and so are the other files"
        with _disk(file, safe=safe), file.open("ab+") as stream:
            _drop_unfinished_line(stream.fileno())
            stream.write(line.encode())

    def write_lines(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        """The file holds these lines; a reader meets the old ones or the new.

        Args:
            name: The file's name.
            records: Rows, in JSON's values.
        """
        lines = [json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records]
        self.write_text(name, "".join(lines))

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Returns the lines of the file, none where there is no file; an unfinished last line is left out.

        Raises:
            ValueError: A line is no JSON object.
        """
        file = self.path / name
        if not file.is_file():
            return []
        *complete, _unfinished = file.read_bytes().split(b"\n")
        records = []
        for number, line in enumerate(complete, start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{file} is damaged: line {number} is not valid JSON ({error})") from error
            if not isinstance(record, dict):
                raise ValueError(f"{file} is damaged: line {number} is not a JSON object")
            records.append(record)
        return records


_WHAT_IT_IS = (
    "A run folder is what `autoprune search` writes (it prints where): run.json, history.jsonl and, "
    "once the run is complete, result.json and report.html"
)


def resume_command(path: Path, targets: Sequence[str] = ()) -> str:
    """What a person types to go on with a run.

    Args:
        path: Of the run's folder.
        targets: Overrides that say which targets of its configuration are trusted.

    >>> print(resume_command(Path("my runs/one")))
    autoprune search 'resume=my runs/one'
    """
    return shlex.join(["autoprune", "search", f"resume={path}", *targets])


def machine() -> dict[str, Any]:
    """Returns the processor, how many of its cores this process may use, its threads, the system and the GPU."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Returns Python's version and those of the installed packages that a run's numbers may depend on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy's numbers and arrays as Python's, NaN and infinity as null."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _drop_unfinished_line(descriptor: int) -> None:
    """Cuts a file back to its last newline. Both reading and writing must be open."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


@contextlib.contextmanager
def _disk(file: Path, *, safe: str) -> Iterator[None]:
    """A full disk becomes an error that says which file was not written, and what is safe."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"the disk is full: {file} could not be written; {safe}. Make room, then go on"
        raise OSError(error.errno, message) from error
