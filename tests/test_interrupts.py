"""Signals end a command once, with one sentence and the status that a shell expects."""

import contextlib
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import NoReturn

import pytest

from autoprune import __main__, interrupts
from autoprune.cli.session import run_command
from autoprune.interrupts import NUMBERS, InterruptedBySignalError, ended_at_once, raised
from autoprune.runs import RunFolder

HERE = [pytest.param(number, id=number.name) for number in NUMBERS]


class EndedError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def default_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """os._exit is an exception with its status."""

    def end(status: int) -> NoReturn:
        raise EndedError(status)

    monkeypatch.setattr(os, "_exit", end)


@pytest.mark.parametrize("number", HERE)
def test_a_signal_is_one_exception_with_its_status(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(InterruptedBySignalError) as caught, raised():
        signal.raise_signal(number)
    assert caught.value.status == 128 + number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", HERE)
def test_a_command_ends_with_one_sentence_and_that_status(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with raised(), pytest.raises(SystemExit) as ended:
        run_command(lambda: signal.raise_signal(number), interrupted=lambda: "It goes on.")
    assert ended.value.code == 128 + number
    said = "Interrupted" if number == signal.SIGINT else f"Ended by {number.name}"
    assert capfd.readouterr().err == f"\n{said}. It goes on.\n"


def test_a_second_signal_ends_the_process_at_once() -> None:
    with raised():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(EndedError, match=f"{128 + signal.SIGTERM}"):
            signal.raise_signal(signal.SIGTERM)


def test_what_a_library_makes_of_the_exception_is_the_interruption() -> None:
    def library() -> NoReturn:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise SystemError("error return without exception set")

    with pytest.raises(InterruptedBySignalError), raised():
        library()
    with pytest.raises(SystemError), raised():
        raise SystemError("of its own")


def test_a_signal_waits_until_torch_is_imported_and_a_second_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    half = types.SimpleNamespace(__spec__=types.SimpleNamespace(_initializing=True))
    monkeypatch.setitem(sys.modules, "torch", half)
    with raised():
        signal.raise_signal(signal.SIGTERM)
        half.__spec__._initializing = False
        with pytest.raises(InterruptedBySignalError):
            time.sleep(60)
    half.__spec__._initializing = True
    with raised():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(EndedError):
            signal.raise_signal(signal.SIGINT)
        sent = threading.Event()
        monkeypatch.setattr(os, "kill", lambda *_: sent.set())
        half.__spec__._initializing = False
        assert sent.wait(60)


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raised():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_while_commands_are_imported_the_process_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Commands(types.ModuleType):
        def __getattr__(self, name: str) -> NoReturn:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError(name)

    monkeypatch.setitem(sys.modules, "autoprune.cli", Commands("autoprune.cli"))
    with pytest.raises(EndedError, match=f"{128 + signal.SIGINT}"):
        __main__.main()
    assert capfd.readouterr().err == "\nInterrupted.\n"
    with ended_at_once():
        pass
    assert signal.getsignal(signal.SIGINT) is not interrupts._end_now


def test_a_terminal_that_was_closed_takes_what_is_written() -> None:
    ours, terminal = os.openpty()
    try:
        interrupts._leave_closed_terminal((terminal,))
        assert os.isatty(terminal)
        os.close(ours)
        with pytest.raises(OSError, match="Input/output"):
            os.write(terminal, b"?")
        interrupts._leave_closed_terminal((terminal,))
        assert os.write(terminal, b"goes nowhere")
    finally:
        os.close(terminal)


def test_a_failed_run_says_how_it_goes_on(tmp_path: Path) -> None:
    from autoprune.cli.search import _run_once

    def fail(error: Exception) -> str:
        def job() -> float:
            raise error

        with pytest.raises(SystemExit) as ended:
            _run_once(job, folder)
        return str(ended.value.code)

    folder = tmp_path / "my runs"
    full = OSError(28, "the disk is full")
    assert "resume=" not in fail(full)
    run = RunFolder.create(folder)
    run.write_text("config.yaml", "task:\n  _target_: mine.task\nagent:\n  _target_: autoprune.search.rl.search\n")
    run.write_json("run.json", {})
    assert fail(full).endswith(f"`autoprune search 'resume={folder}' task._target_=mine.task` goes on.")
    assert "resume=" not in fail(ValueError("evaluations=0"))


def test_a_run_that_cannot_be_written_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.cli.search import Launch

    run = RunFolder.create(tmp_path / "run")
    run.write_json("run.json", {})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match="copy it"):
        Launch.of_run(run.path)
