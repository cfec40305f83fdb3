"""What committed numbers come from: by which command, when, from which commit and on which machine."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoprune.runs import machine, versions

ROOT = Path(__file__).resolve().parent.parent


def origin(command: str) -> dict[str, Any]:
    described = ["git", "describe", "--always", "--dirty"]  # -dirty: with changes that are not committed
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": subprocess.check_output(described, cwd=ROOT, text=True).strip(),
        "machine": machine(),
        "versions": versions(),
    }
