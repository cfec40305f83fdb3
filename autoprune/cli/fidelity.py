"""`autoprune fidelity`: does the score that a search sees rank plans as recovery will?"""

import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from autoprune.cli.command_settings import FidelitySettings
from autoprune.cli.session import Session, run_command, same_command_goes_on

if TYPE_CHECKING:
    from autoprune.problem.problem import Problem

# What a study that goes on must share.
FIXED = ("importance", "start", "recover", "structure", "evaluation", "repairs", "seed")


def fidelity(config: DictConfig) -> None:
    """One study of how well scores rank plans. In the folder of one that stopped it goes on."""
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    run_command(
        partial(_fidelity, config, folder, overrides),
        interrupted=lambda: same_command_goes_on(folder),
        failed=lambda: same_command_goes_on(folder) if (folder / "run.json").exists() else "",
    )


def _fidelity(config: DictConfig, folder: Path, overrides: list[str]) -> None:
    session = Session.begin(config, FidelitySettings, folder, overrides, command="autoprune fidelity")

    from autoprune.evaluation.short_training import ShortTraining
    from autoprune.fidelity.study import Level, Study
    from autoprune.fidelity.summary import PLANS, STUDY, summarise
    from autoprune.repair.repair import Repair
    from autoprune.report.fidelity_page import headline, reason, write_fidelity_page
    from autoprune.runs import RunFolder

    settings = session.settings
    session.prepare_process()
    scores, recover, spec = session.part("scores"), session.part("recover"), session.spec()
    task, default = session.task(), scores[settings["default"]["score"]]

    def ready(budget: str | None, repair: Repair, training: ShortTraining | None = None) -> "Problem":
        evaluation = replace(spec.evaluation, training=training)
        wanted = replace(spec, budget=budget, repair=repair, score=default, evaluation=evaluation)
        return session.prepared(task, wanted)

    run = RunFolder(folder)
    if not run.has("run.json"):
        run.write_text("config.yaml", session.written)
        run.write_json("run.json", {**session.record(task), "commit": _commit()})
    levels = [settings] + ([settings["second"]] if settings["second"] else [])
    study = Study(
        task=task,
        ready=ready,
        repairs=session.part("repairs"),
        scores=scores,
        trained=session.part("trained"),
        default=(settings["default"]["repair"], settings["default"]["score"]),
        start=settings["start"],
        recover=lambda steps: partial(recover, steps=steps),
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
            result = summarise(run, scores=scores)
            print(f"{headline(result)}.\n{reason(result)}\nreport: {write_fidelity_page(run)}")


def _commit() -> str | None:
    """Of the checkout that this is, if it is one."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
