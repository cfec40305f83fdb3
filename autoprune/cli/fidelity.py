"""`autoprune fidelity`: does the score that a search sees rank plans as recovery will?"""

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from autoprune.cli.parts import instantiate_part, run_command, spec_of, task_of

# What a study that goes on must share.
FIXED = ("importance", "start", "recover", "structure", "evaluation", "repairs", "seed")


def fidelity(config: DictConfig) -> None:
    """One study of how well scores rank plans. In the folder of one that stopped it goes on."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    run_command(
        lambda: _fidelity(config, folder),
        interrupted=lambda: f"The same command goes on from here with hydra.run.dir={folder}",
    )


def _fidelity(config: DictConfig, folder: Path) -> float:
    import torch

    from autoprune.evaluation.short_training import ShortTraining
    from autoprune.fidelity.study import Level, Study
    from autoprune.fidelity.summary import PLANS, STUDY, summarise
    from autoprune.machine_cache import MeasurementCache, cache_dir, choose_allocator
    from autoprune.problem.problem import Problem
    from autoprune.repair.repair import Repair
    from autoprune.report.fidelity_page import write_fidelity_page
    from autoprune.report.fidelity_wording import headline, reason
    from autoprune.runs import RunFolder, machine, versions

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    choose_allocator(MeasurementCache(cache_dir()))
    torch.set_num_threads(settings["threads"] or os.cpu_count() or 1)
    torch.manual_seed(settings["seed"])
    names = ("recover", "repairs", "scores", "trained")
    parts = {name: instantiate_part(settings, name) for name in names}
    task = task_of(settings["task"], settings.get("data"))

    spec, default = spec_of(settings), parts["scores"][settings["default"]["score"]]

    def ready(budget: str | None, repair: Repair, training: ShortTraining | None = None) -> Problem:
        evaluation = replace(spec.evaluation, training=training)
        wanted = replace(spec, budget=budget, repair=repair, score=default, evaluation=evaluation)
        return Problem.prepare(task, wanted, seed=settings["seed"])

    run = RunFolder(folder)
    if not run.has("run.json"):
        run.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
        run.write_json(
            "run.json",
            {
                "name": folder.name,
                "task": task.name,
                "seed": settings["seed"],
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": versions(),
                "machine": machine(),
                "commit": _commit(),
                "data": task.data.digests,
                "overrides": list(HydraConfig.get().overrides.task),
            },
        )
    levels = [settings] + ([settings["second"]] if settings["second"] else [])
    study = Study(
        task=task,
        ready=ready,
        repairs=parts["repairs"],
        scores=parts["scores"],
        trained=parts["trained"],
        default=(settings["default"]["repair"], settings["default"]["score"]),
        start=settings["start"],
        recover=lambda steps: partial(parts["recover"], steps=steps),
        levels=[Level(level["budget"], level["plans"], level["repeated"]) for level in levels],
        lengths=settings["lengths"],
        seeds=settings["seeds"],
        seed=settings["seed"],
        conditions={"data": task.data.digests, **{name: settings[name] for name in FIXED}},
        run=run,
    )
    try:
        study.execute()
    finally:
        if run.has(STUDY) and run.has(PLANS):  # of an interrupted study the page shows what there is
            result = summarise(run, scores=parts["scores"])
            print(f"{headline(result)}.\n{reason(result)}\nreport: {write_fidelity_page(run)}")
    return 0.0


def _commit() -> str | None:
    """Of the checkout that this is, if it is one."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
