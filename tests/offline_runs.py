"""Tracked runs without a server, and what they hold."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def records(folder: Path) -> list[dict[str, Any]]:
    """What is in the one offline run of a run folder, by W&B's own reader."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    return records_of(run)


def records_of(run: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def of(read: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in read if record["type"] == kind]
