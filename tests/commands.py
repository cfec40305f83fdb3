"""The command as a user starts it: a process of its own, whose modules a server has imported beforehand.

Importing torch and the rest takes every process several seconds. The standard library's fork server imports them once
for each worker of the tests; a command is a fork of it, with its own folder, environment, output and signals. Tests of
the start itself (its time, warnings, hash seeds, another installation) begin a new interpreter: `fresh=True`.
"""

import atexit
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

AUTOPRUNE = Path(sys.executable).with_name("autoprune")
MY_TASK = """
import torch
from torch import nn
import autoprune

def my_task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    def role(samples):
        return autoprune.Role(torch.randn(samples, 1, 6, 6), torch.randint(4, (samples,)))
    data = autoprune.Roles(train=role(200), calibration=role(50), search=role(100), test=role(50))
    return autoprune.Task(model, torch.zeros(1, 1, 6, 6), data, budget="macs:0.5")
"""

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "autoprune.cli", "autoprune.pipeline", "autoprune.recover.fine_tune", "autoprune.repair.repair",
        "autoprune.report.page", "autoprune.search.few_shot", "onnx", "onnxruntime", "sb3_contrib", "scipy.stats",
        "sklearn.datasets", "torch._dynamo.aot_compile", "torch.distributed.tensor",
        "torch.onnx._internal.torchscript_exporter.utils",
    ]
)  # fmt: skip
Completed = subprocess.CompletedProcess[str]


class Started:
    """A command at work, with what tests need of `subprocess.Popen`. It has to be waited for."""

    def __init__(self, code: str, argv: list[str], cwd: Path, env: Mapping[str, str] | None) -> None:
        self.args = argv
        self._folder = Path(tempfile.mkdtemp())
        self._outputs = [self._folder / name for name in ("stdout", "stderr")]
        for path in self._outputs:
            path.touch()
        work = (code, argv, cwd.resolve(), dict(os.environ if env is None else env), self._outputs)
        self._process = SERVER.Process(target=_work, args=work)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self._process.pid, number)

    def output(self) -> str:
        """What it has printed up to now."""
        return self._outputs[0].read_text()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Its output and its errors, once it has ended; it is ended where that takes longer."""
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            self._process.kill()
            self._process.join()
        output, errors = (path.read_text() for path in self._outputs)
        shutil.rmtree(self._folder)
        if late:
            raise subprocess.TimeoutExpired(self.args, timeout, output, errors)
        return output, errors


def start(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Started:
    """`autoprune ARGUMENTS` has been started."""
    return Started("from autoprune.cli import main; main()", [str(AUTOPRUNE), *arguments], cwd, env)


def run(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, fresh: bool = False) -> Completed:
    """`autoprune ARGUMENTS` has ended; where it is fresh, of the installed script."""
    if fresh:
        return subprocess.run([AUTOPRUNE, *arguments], cwd=cwd, env=env, text=True, capture_output=True, timeout=300)
    return _ended(start(*arguments, cwd=cwd, env=env))


def start_python(code: str, *arguments: str, cwd: Path = Path(), env: Mapping[str, str] | None = None) -> Started:
    """`python -c CODE ARGUMENTS` has been started."""
    return Started(code, ["-c", *arguments], cwd, env)


def run_python(code: str, *arguments: str, cwd: Path = Path(), env: Mapping[str, str] | None = None) -> Completed:
    """`python -c CODE ARGUMENTS` has ended."""
    return _ended(start_python(code, *arguments, cwd=cwd, env=env))


def _ended(process: Started) -> Completed:
    output, errors = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _work(code: str, argv: list[str], cwd: Path, env: dict[str, str], outputs: list[Path]) -> None:
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    sys.argv = argv
    try:
        exec(code, {"__name__": "__main__"})
    finally:  # as an interpreter ends; a fork of a server would skip it
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
