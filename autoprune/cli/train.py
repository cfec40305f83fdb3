"""`autoprune train`: makes a policy for many networks and budgets."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from autoprune.cli.parts import instantiate_part, named_task, run_command, spec_of, store_folder, task_of

if TYPE_CHECKING:
    from autoprune.problem.problem import Problem
    from autoprune.task.task import Task
    from autoprune.transfer.held_out import HeldOut
    from autoprune.transfer.policy import Policy
    from autoprune.transfer.studied_network import StudiedNetwork

KEPT = "What was judged is in the evaluation store: the same command with the same seed does not pay for it again."

Settings = Mapping[str, Any]


def train(config: DictConfig) -> float:
    """Trains, tries the policy on networks that it has not seen, and leaves it in the run's folder."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    return run_command(partial(_train, config, folder), interrupted=lambda: KEPT)


def _train(config: DictConfig, folder: Path) -> float:
    import numpy as np
    import torch

    from autoprune.agent.bundle import save_policy
    from autoprune.cost.budget_range import BudgetRange
    from autoprune.machine_cache import MeasurementCache, cache_dir, choose_allocator
    from autoprune.report.progress import StageProgress
    from autoprune.report.transfer_tables import print_trained
    from autoprune.runs import RunFolder, machine, versions
    from autoprune.transfer.held_out import RETURNED
    from autoprune.transfer.policy import SENSITIVITY, Policy
    from autoprune.transfer.transfer_training import train

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    settings["evaluation"]["store"] = store_folder(settings["evaluation"]["store"], folder)
    torch.set_num_threads(settings["threads"] or torch.get_num_threads())
    choose_allocator(MeasurementCache(cache_dir()))
    torch.manual_seed(settings["seed"])
    texts = [settings["budget"]] if isinstance(settings["budget"], str) else settings["budget"]
    ranges = [BudgetRange.parse(text) for text in texts]
    agent = instantiate_part(settings, "agent").keywords["agent"]
    run = RunFolder.create(folder)
    run.write_text("config.yaml", OmegaConf.to_yaml(config, resolve=True))
    tracker = instantiate_part(settings, "tracking")(
        folder, name=folder.name, group="train", job_type="train", config=settings
    )
    failed = True
    try:
        networks = [network for _, network in _networks(settings, settings, first=0)]
        with StageProgress() as progress:
            trained = train(
                networks,
                budgets=ranges,
                settings=settings["settings"],
                agent=agent,
                evaluations=settings["evaluations"],
                seed=settings["seed"],
                on_metrics=lambda metrics, step: tracker.log(metrics, axis="agent/step", step=step),
                on_progress=lambda done, of: progress.update(done, of=of, phase="train", note=""),
            )
        save_policy(trained.policy, folder / "policy", training=trained.training)
        rows = _tried(Policy.load(folder / "policy"), settings)
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
        failed = False
    finally:
        tracker.close(failed=failed)
    print_trained(rows, folder / "policy")
    return 0.0


def _networks(settings: Settings, wanted: Settings, *, first: int) -> list[tuple[str, "StudiedNetwork"]]:
    """The networks that `wanted` names and their families, studied. first: the number that variants begin at."""
    from autoprune.report.progress import StageProgress
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
    found = []
    with StageProgress() as progress:
        for done, (family, make) in enumerate([*named, *variants], start=1):
            task = make()
            found.append((family, StudiedNetwork.study(_problem(task, settings))))
            progress.update(done, of=len(named) + len(variants), phase="networks", note=task.name)
    return found


def _named(task: str | dict[str, Any]) -> "Task":
    found: Task = named_task(task) if isinstance(task, str) else task_of(dict(task), None)
    return found


def _problem(task: "Task", settings: Settings) -> "Problem":
    from autoprune.problem.problem import Problem

    spec = spec_of(settings, budget=task.budget or "macs:0.5")  # others are drawn
    return Problem.prepare(task, spec, seed=settings["seed"])


def _tried(policy: "Policy", settings: Settings) -> list["HeldOut"]:
    """The policy on each network that is held out, under each budget."""
    from autoprune.cost.budget import parse_budget
    from autoprune.report.progress import StageProgress
    from autoprune.transfer.held_out import best_known, held_out

    wanted = settings["held_out"]
    networks = _networks(settings, wanted, first=settings["variants"]["numbers"])
    cells = [(family, network, text) for family, network in networks for text in wanted["budgets"]]
    rows = []
    with StageProgress() as progress:
        for done, (family, network, text) in enumerate(cells, start=1):
            budget = parse_budget(text, network.problem.costs, network.problem.structure)
            best = best_known(network, budget, evaluations=wanted["evaluations"], seed=0)
            rows.append(held_out(policy, network, budget, family=family, best=best, seed=settings["seed"]))
            progress.update(done, of=len(cells), phase="held out", note=network.problem.task.name)
    return rows
