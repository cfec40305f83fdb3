"""`autoprune train`: makes a policy for many networks and budgets."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from autoprune.cli.command_settings import TrainSettings
from autoprune.cli.parts import Settings, named_task, task_of
from autoprune.cli.session import Session, run_command

if TYPE_CHECKING:
    from autoprune.problem.problem import Problem
    from autoprune.problem.step_times import OnStep
    from autoprune.task.task import Task
    from autoprune.transfer.held_out import HeldOut
    from autoprune.transfer.policy import Policy
    from autoprune.transfer.studied_network import StudiedNetwork

KEPT = "What was judged is in the evaluation store: the same command with the same seed does not pay for it again."


def train(config: DictConfig) -> None:
    """Trains, tries the policy on networks that it has not seen, and leaves it in the run's folder."""
    hydra = HydraConfig.get()
    folder, overrides = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    run_command(partial(_train, config, folder, overrides), interrupted=lambda: KEPT)


def _train(config: DictConfig, folder: Path, overrides: list[str]) -> None:
    session = Session.begin(config, TrainSettings, folder, overrides, command="autoprune train")

    import numpy as np

    from autoprune.agent.bundle import save_policy
    from autoprune.cost.budget_range import BudgetRange
    from autoprune.report.progress import StageProgress
    from autoprune.report.transfer_tables import print_trained
    from autoprune.runs import machine, versions
    from autoprune.transfer.held_out import RETURNED
    from autoprune.transfer.policy import SENSITIVITY, Policy
    from autoprune.transfer.transfer_training import train

    settings = session.settings
    session.prepare_process()
    texts = [settings["budget"]] if isinstance(settings["budget"], str) else settings["budget"]
    agent = session.part("agent").keywords["agent"]
    run = session.new_run()
    with session.tracked(group="train", job_type="train", config=dict(settings)) as tracker:
        networks = [network for _, network in _networks(session, settings, first=0)]
        with StageProgress() as progress:
            trained = train(
                networks,
                budgets=[BudgetRange.parse(text) for text in texts],
                settings=settings["settings"],
                agent=agent,
                evaluations=settings["evaluations"],
                seed=settings["seed"],
                on_metrics=lambda metrics, step: tracker.log(metrics, axis="agent/step", step=step),
                on_progress=lambda done, of: progress.update(done, of=of, phase="train", note=""),
            )
        save_policy(trained.policy, folder / "policy", training=trained.training)
        rows = _tried(Policy.load(folder / "policy"), session)
        save_policy(trained.policy, folder / "policy", training=trained.tried([row.as_row() for row in rows]))
        run.write_json(
            "result.json",
            {
                "seed": settings["seed"],
                "evaluations": trained.evaluations,
                "networks": [network.problem.task.name for network in networks],
                "held_out": [row.as_json() for row in rows],
                "versions": versions(),
                "machine": machine(),
            },
        )
        if rows:
            tracker.summary(
                {
                    "result/held_out_score": float(np.mean([row.score(RETURNED) for row in rows])),
                    "result/held_out_sensitivity": float(np.mean([row.score(SENSITIVITY) for row in rows])),
                }
            )
        tracker.artifact("policy", folder / "policy", kind="policy")
    print_trained(rows, folder / "policy")


def _networks(session: Session, wanted: Settings, *, first: int) -> list[tuple[str, "StudiedNetwork"]]:
    """The networks that `wanted` names and their families, studied. first: the number that variants begin at."""
    from autoprune.report.progress import PATIENCE_S, StageProgress
    from autoprune.task.variants import variant
    from autoprune.transfer.studied_network import StudiedNetwork

    named = [("named", partial(_named, each)) for each in wanted["tasks"]]
    of = wanted["variants"]
    variants = [
        (family, partial(variant, family=family, images=images, number=number))
        for number in range(first, first + of["numbers"])
        for images in of["images"]
        for family in of["families"]
    ]
    networks = []
    with StageProgress(after_s=PATIENCE_S) as progress:
        for done, (family, make) in enumerate([*named, *variants], start=1):
            show = partial(progress.update, done - 1, of=len(named) + len(variants), phase="networks")
            show(note="training one" if family != "named" else "loading one")
            task = make()
            problem = _problem(task, session, lambda step, *_, show=show, task=task: show(note=f"{task.name}: {step}"))
            show(note=f"{task.name}: one group at a time")
            networks.append((family, StudiedNetwork.study(problem)))
            progress.update(done, of=len(named) + len(variants), phase="networks", note=task.name)
    return networks


def _named(task: str | Settings) -> "Task":
    return named_task(task) if isinstance(task, str) else task_of(task, None)


def _problem(task: "Task", session: Session, progress: "OnStep") -> "Problem":
    from autoprune.problem.problem import Problem

    spec = session.spec(budget=task.budget or "macs:0.5")  # others are drawn
    return Problem.prepare(task, spec, seed=session.settings["seed"], progress=progress)


def _tried(policy: "Policy", session: Session) -> list["HeldOut"]:
    """The policy on each network that is held out, under each budget."""
    from autoprune.cost.budget import parse_budget
    from autoprune.report.progress import StageProgress
    from autoprune.transfer.held_out import held_out, reference_plan

    settings, wanted = session.settings, session.settings["held_out"]
    networks = _networks(session, wanted, first=settings["variants"]["numbers"])
    cells = [(family, network, text) for family, network in networks for text in wanted["budgets"]]
    rows = []
    with StageProgress() as progress:
        for done, (family, network, text) in enumerate(cells, start=1):
            budget = parse_budget(text, network.problem.costs, network.problem.structure)
            best = reference_plan(network, budget, evaluations=wanted["evaluations"], seed=0)
            rows.append(held_out(policy, network, budget, family=family, best=best, seed=settings["seed"]))
            progress.update(done, of=len(cells), phase="held out", note=network.problem.task.name)
    return rows
