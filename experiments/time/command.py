"""The studies of pruning over time: what each has made lies on the disk, and it goes on from there."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.schedule.decision import PruningGoal, Schedule
from autoprune.schedule.engine import train_pruned
from autoprune.schedule.lottery_tickets import TicketSearch, TicketSettings
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.schedules import alternating, cubic, one_shot, rigl, sparse_evolutionary, static_mask
from autoprune.task.fashion_mnist import fashion_full, fashion_subset
from autoprune.task.networks import resnet20
from autoprune.task.task import Roles, Task, outputs_of
from autoprune.task.training import flip
from experiments.cells import kept
from experiments.origin import ROOT, origin
from experiments.time.agent import agent_cells, train_policy
from experiments.time.family import family_cells
from experiments.time.overhead import overhead_rows
from experiments.time.summary import write_summary

HERE = Path(__file__).parent
CELLS = HERE / "data"  # committed: what a study has so far, a file for each of its parts
CHECKPOINTS = ROOT / "runs" / "time"
IMAGES = "/usr/share/datasets/fashion-mnist"  # of Debian's dataset-fashion-mnist
ROUNDS, CONTROL_ROUNDS = 21, (4, 7, 9, 11, 13, 15, 18, 21)  # the last leaves 1 % of the weights
STUDIES = (
    "tickets", "schedules", "rigl", "resnet", "rewinding", "agent", "policy", "family", "overhead", "summary",
)  # fmt: skip
SPARSE_FROM_START = ("rigl", "set", "static")
RULED = {0.1: ("one_shot", "cubic", "rigl", "static"), 0.05: ("one_shot", "cubic")}  # what rules compare goes first
SCHEDULES: dict[str, Schedule] = {
    "one_shot": one_shot(),
    "cubic": cubic(),
    "acdc": alternating(),
    "rigl": rigl(),
    "set": sparse_evolutionary(),
    "static": static_mask(),
}
DENSITIES = (0.1, 0.05, 0.01)
RIGL_TRIALS: dict[str, tuple[float, float, Schedule]] = {  # density, training in steps of the dense network, schedule
    "four times the training": (0.1, 800, rigl()),
    "a hundred exchanges": (0.1, 200, rigl(decisions=100)),
    "a tenth exchanged": (0.1, 200, rigl(regrow=0.1)),
    "2 % of the weights": (0.02, 200, rigl()),
}
RESNET_ROUNDS = TicketSettings(rounds=2, share=0.687, steps=400, controls=(), check_every=400)  # to 9.8 %
RESNET_RECIPE = TrainingRecipe(learning_rate=0.2, batch_size=64, bf16=True)  # the rate of the shipped network
REWIND_STEPS = (0, 60)
REWINDING_TRIALS: dict[str, tuple[TicketSettings, TrainingRecipe]] = {  # what ResNet-20 had, each with one change
    "1 % of the weights": (replace(RESNET_ROUNDS, rounds=4), RESNET_RECIPE),
    "twice the learning rate": (RESNET_ROUNDS, replace(RESNET_RECIPE, learning_rate=0.4)),
    "twice the training": (replace(RESNET_ROUNDS, steps=800, check_every=800), RESNET_RECIPE),
}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    match arguments.study:
        case "tickets":
            tickets(arguments.seeds)
        case "schedules":
            schedules(arguments.seeds)
        case "rigl":
            rigl_trials(arguments.seeds)
        case "resnet":
            resnet(arguments.seeds)
        case "rewinding":
            rewinding_trials(arguments.seeds)
        case "summary":
            write_summary()
        case "overhead":
            overhead()
        case "family":
            family_cells(cell, seeds=arguments.seeds)
        case "policy":
            train_policy(origin("experiments/time/run policy"))
        case _:
            agent_cells(cell, seeds=arguments.seeds)


def cell(study: str, name: str, make: Callable[[], list[Any]]) -> list[Any]:
    """Returns the rows of one part of a study; they are made once, and lie in a file with where they are from."""
    command = f"experiments/time/run {study}"
    content: dict[str, Any] = kept(CELLS, f"{study}_{name}", lambda: {"origin": origin(command), "rows": make()})
    return list(content["rows"])


def lenet(inputs: int = 784) -> nn.Module:
    """LeNet-300-100: 266,200 weights."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def small_cnn() -> nn.Module:
    """Four convolutions with BatchNorm: 24,808 weights."""
    parts, channels = list[nn.Module](), (1, 16, 24, 32, 40)
    for before, after in pairwise(channels):
        parts += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(160, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], TrainingRecipe, Any]] = {  # with how the images are augmented
    "lenet": (lenet, TrainingRecipe(learning_rate=0.05), None),
    "cnn": (small_cnn, TrainingRecipe(learning_rate=0.1), flip),
}


def task_of(network: nn.Module, data: Roles, name: str, **options: Any) -> Task:
    return Task(network, data.train.inputs[:1], data, name=name, **options)


def tickets(seeds: int) -> None:
    """Rounds and controls of LeNet-300-100 on all of Fashion-MNIST."""
    recipe = TrainingRecipe(learning_rate=1.2e-3, batch_size=60, optimizer="adamw", weight_decay=0.0, curve="constant")
    settings = TicketSettings(
        rounds=ROUNDS, share=0.2, steps=1000, allocation="uniform", output_rate=0.5, control_rounds=CONTROL_ROUNDS,
        controls=("reinitialised", "random"), check_every=100,
    )  # fmt: skip
    data = fashion_full(folder=IMAGES)

    def one(seed: int) -> list[Any]:
        search = TicketSearch(task_of(lenet(), data, "lenet"), settings, recipe, seed, CHECKPOINTS / f"tickets_{seed}")
        search.run()
        return search.rows

    for seed in range(seeds):
        cell("tickets", f"{seed}", partial(one, seed))


def schedules(seeds: int) -> None:
    """Test accuracy of every schedule at equal training MACs; those that are sparse throughout not at 1 %."""

    def one(network: str, schedule: str, density: float, seed: int) -> list[Any]:
        goal = PruningGoal(density=density, steps=200, start="initial")
        return [{"schedule": schedule, **scheduled(network, SCHEDULES[schedule], goal, seed)}]

    cells = list(product(DENSITIES, range(seeds), NETWORKS, SCHEDULES))
    for density, seed, network, schedule in sorted(cells, key=lambda each: each[3] not in RULED.get(each[0], ())):
        if density > 0.02 or schedule not in SPARSE_FROM_START:
            name = f"{network}_{schedule}_{density:g}_{seed}"
            cell("schedules", name, partial(one, network, schedule, density, seed))


def rigl_trials(seeds: int) -> None:
    """RigL beside a static mask of the same density and training, each trial with one thing changed."""

    def one(network: str, trial: str, seed: int) -> list[Any]:
        density, steps, schedule = RIGL_TRIALS[trial]
        goal = PruningGoal(density=density, steps=steps, start="initial")
        return [
            {"trial": trial, "schedule": name, **scheduled(network, each, goal, seed)}
            for name, each in (("rigl", schedule), ("static", static_mask()))
        ]

    for seed, trial, network in product(range(seeds), RIGL_TRIALS, NETWORKS):
        name = trial.replace(" ", "_").replace("%", "percent")
        cell("rigl", f"{network}_{name}_{seed}", partial(one, network, trial, seed))


def scheduled(network: str, schedule: Schedule, goal: PruningGoal, seed: int) -> dict[str, Any]:
    """One of NETWORKS trained on the shipped subset with a schedule, and its test accuracy."""
    build, recipe, augment = NETWORKS[network]
    task = task_of(build(), fashion_subset(), network, augment=augment)
    result = train_pruned(task, schedule, goal, recipe=recipe, seed=seed)
    test = task.data.test
    return {
        "network": network, "density": goal.density, "seed": seed, "steps": result.steps, "macs": result.macs,
        "test_accuracy": task.metric(outputs_of(result.network, test.inputs), test.targets),
    }  # fmt: skip


def overhead() -> None:
    """A step of the engine beside one of a plain loop, for three networks; let nothing else run meanwhile."""
    data = fashion_subset()
    networks = {"lenet": lenet(), "cnn": small_cnn(), "resnet20": resnet20()}
    for name, network in networks.items():
        task = task_of(network, data, name)
        recipe = TrainingRecipe(learning_rate=0.01)
        cell("overhead", f"{name}_fused", partial(overhead_rows, f"{name}, fused steps", task, recipe))


def resnet(seeds: int) -> None:
    """ResNet-20 at full learning rate: tickets rewound to step 0, and to later ones."""
    for seed, step in product(range(seeds), REWIND_STEPS):
        cell("resnet", f"{step}_{seed}", partial(resnet_tickets, "resnet", RESNET_ROUNDS, RESNET_RECIPE, step, seed))


def rewinding_trials(seeds: int) -> None:
    """The same with one thing changed; fewer weights go on from the rounds that there are."""
    for (trial, (settings, recipe)), seed, step in product(REWINDING_TRIALS.items(), range(seeds), REWIND_STEPS):
        name = trial.replace(" ", "_").replace("%", "percent")
        folder = "resnet" if settings.rounds > RESNET_ROUNDS.rounds else name

        def one(
            trial: str = trial, folder: str = folder, settings: TicketSettings = settings,
            recipe: TrainingRecipe = recipe, step: int = step, seed: int = seed,
        ) -> list[Any]:  # fmt: skip
            return [{"trial": trial, **row} for row in resnet_tickets(folder, settings, recipe, step, seed)]

        cell("rewinding", f"{name}_{step}_{seed}", one)


def resnet_tickets(
    folder: str, settings: TicketSettings, recipe: TrainingRecipe, step: int, seed: int
) -> list[dict[str, Any]]:
    """Tickets of ResNet-20 on the shipped subset, rewound to a step."""
    settings = replace(settings, rewind="step" if step else "initial", rewind_step=step)
    task = task_of(resnet20(), fashion_subset(), "resnet20", augment=flip)
    search = TicketSearch(task, settings, recipe, seed, CHECKPOINTS / f"{folder}_{step}_{seed}")
    search.run()
    return [{**row, "rewind_step": step} for row in search.rows]
