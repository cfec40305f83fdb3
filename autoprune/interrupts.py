"""How Ctrl-C, SIGTERM (Slurm, docker, kill) and SIGHUP (a closed terminal) end a command: as one exception, once."""

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
POLL_S = 0.02  # while torch is imported


class InterruptedBySignalError(KeyboardInterrupt):
    """A signal asked the process to end. `status` is what a shell expects of it, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__("Interrupted" if number == signal.SIGINT else f"Ended by {signal.Signals(number).name}")
        self.status = 128 + number


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """A signal ends the process with one line: for the time in which a command has done nothing yet but import."""
    with _handled(_end_now):
        yield


def in_console_script() -> bool:
    """Whether the process is a command, and not a program that imports autoprune."""
    return Path(sys.argv[0] if sys.argv else "").stem == "autoprune"


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """The first signal is raised as InterruptedBySignalError, so that files, trackers and workers are closed.

    While torch is imported it waits: what is half imported cannot be used or closed. A second signal ends the process.
    What a library makes of the exception is the same interruption.
    """
    handler = _Raising()
    with _handled(handler):
        try:
            yield
        except Exception as error:
            if handler.received is None:
                raise
            raise InterruptedBySignalError(handler.received) from error


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Signals that whoever started the process has it ignore (nohup, `&` of a script) are ignored on."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in NUMBERS}
    before = {number: handled for number, handled in before.items() if handled not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


class _Raising:
    def __init__(self) -> None:
        self.received: int | None = None
        self._delayed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and not self._delayed:
            _end_now(number, frame)
        self.received, self._delayed = number, False
        if _is_half_imported("torch"):
            threading.Thread(target=self._send_again, args=(number,), daemon=True).start()
            return
        _leave_closed_terminal()
        raise InterruptedBySignalError(number)

    def _send_again(self, number: int) -> None:
        while _is_half_imported("torch"):
            time.sleep(POLL_S)
        self._delayed = True
        os.kill(os.getpid(), number)


def _end_now(number: int, _frame: FrameType | None) -> NoReturn:
    with contextlib.suppress(OSError):  # a terminal that was closed
        os.write(2, b"\nInterrupted.\n")
    os._exit(128 + number)


def _is_half_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _leave_closed_terminal(descriptors: tuple[int, ...] = (1, 2)) -> None:
    """What is printed from here on goes nowhere where the terminal has gone: it must not end what is still written."""
    for descriptor in descriptors:
        try:
            os.get_terminal_size(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
