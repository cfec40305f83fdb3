"""Starts a command of this folder in the checkout's own environment, whatever Python its script was started with."""

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"


def launch(script: str, command: str, **variables: str) -> None:
    """Calls `main` of the module `command`; the process begins anew where another environment's Python runs it.

    Args:
        script: The file that was started.
        command: The module's full name.
        variables: Of the process, set before anything that reads them is imported.
    """
    environment = ROOT / ".venv"
    python = environment / "bin" / "python"
    if Path(sys.prefix) != environment and python.exists():
        os.execv(python, [str(python), script, *sys.argv[1:]])
    os.environ |= variables
    importlib.import_module(command).main()
