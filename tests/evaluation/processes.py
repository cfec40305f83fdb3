"""Looking at processes from outside: which run, and a script that is a parent of workers."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]

PARENT = """
import multiprocessing, sys
from pathlib import Path
from autoprune.evaluation.workers import JudgeJob, Processes
from tests.evaluation.evaluators import Scripted

class Local(Scripted):  # of the script: workers import it too
    pass

if __name__ == "__main__":
    with Processes(Local(Path(sys.argv[1]), {(2,): "hang", (3,): "hang"}), workers=2) as pool:
        for job, answer in pool.judge([JudgeJob((n,), 0, 1) for n in range(4)]):
            if job.kept == (1,):
                print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


def running(pid: int | None) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Callable[[], bool], *, within_s: float = 300.0) -> bool:
    """Whether the condition holds at some moment before that; the limit is far more than it needs."""
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def start_parent(folder: Path, environment: dict[str, str]) -> "tuple[subprocess.Popen[str], list[int]]":
    """A process in a session of its own, and its two workers, which will hang over their next job."""
    script = folder / "script.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]
