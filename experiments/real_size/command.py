"""One search on a network of real size, as a person starts it; how long its stages took, and the most memory it had."""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def main() -> None:
    """Runs the search, or goes on with it where it was cut off, and prints what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=("resnet50", "vit_b16"))
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--samples", type=int, default=3000, help="of the search role, half of which make the rewards")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    folder = ROOT / "runs" / "real_size" / f"{asked.network}_{asked.evaluations}_{asked.samples}"
    target = f"experiments.real_size.networks.{asked.network}"
    command = [str(Path(sys.executable).with_name("autoprune")), "search"]
    if (folder / "run.json").exists():
        command += [f"resume={folder}", f"task._target_={target}"]
    else:
        command += [f"task._target_={target}", f"+task.samples={asked.samples}", f"evaluations={asked.evaluations}"]
        command += [f"threads={asked.threads}", "tracking=none", "evaluation.store=run", f"hydra.run.dir={folder}"]
    if not (folder / "result.json").exists():
        subprocess.run(command, cwd=ROOT, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(json.dumps(row(folder, asked.network, peak), indent=1))


def row(folder: Path, network: str, peak_bytes: int) -> dict[str, Any]:
    """What result.json and run.json say of the time; memory is 0 where the run was complete already."""
    run, result = (json.loads((folder / f"{name}.json").read_text()) for name in ("run", "result"))
    preparation, seconds = run["preparation_seconds"], result["seconds"]
    return {
        "network": network,
        "minutes": (sum(preparation.values()) + seconds["total"]) / 60,
        "preparation_seconds": preparation,
        "seconds": seconds,
        "planned_seconds": result["planned_seconds"],
        "evaluations": result["evaluations"],
        "peak_bytes": peak_bytes,
        "weights": result["networks"]["dense"]["file_bytes"]["safetensors"],
        "resumed": run.get("resumed", []),
        "machine": run["machine"],
        "versions": run["versions"],
    }
