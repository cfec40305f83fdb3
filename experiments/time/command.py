"""The studies of pruning over time: cells on disk, and their tables as JSON beside the page."""

import argparse
import json
from functools import partial
from itertools import pairwise
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
from autoprune.task.task import Roles, Task, outputs_of
from autoprune.task.training import flip
from experiments.cells import kept
from experiments.origin import ROOT, origin
from experiments.time.agent import agent_cells, train_policy
from experiments.time.summary import write_summary

HERE = Path(__file__).parent
CELLS = ROOT / "runs" / "time"
IMAGES = "/usr/share/datasets/fashion-mnist"  # of Debian's dataset-fashion-mnist
ROUNDS, CONTROL_ROUNDS = 15, (4, 7, 9, 11, 13, 15)
SCHEDULES: dict[str, Schedule] = {
    "one_shot": one_shot(),
    "cubic": cubic(),
    "rigl": rigl(),
    "set": sparse_evolutionary(),
    "static": static_mask(),
    "acdc": alternating(),
}
DENSITIES = (0.1, 0.05)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=("tickets", "schedules", "agent", "policy", "summary"))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--collect", action="store_true", help="of schedules: what is there already, and no more")
    arguments = parser.parse_args()
    match arguments.study:
        case "tickets":
            rows = tickets(arguments.seeds or 5, arguments.steps or 1000)
        case "schedules":
            rows = schedules(arguments.seeds or 5, arguments.steps or 200, collect=arguments.collect)
        case "summary":
            return write_summary()
        case "policy":
            return train_policy(origin("experiments/time/run policy"))
        case _:
            rows = agent_cells(CELLS, seeds=arguments.seeds or 10)
    record = {"origin": origin(f"experiments/time/run {arguments.study}"), "rows": rows}
    (HERE / f"{arguments.study}.json").write_text(json.dumps(record, indent=1) + "\n")


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


def task_of(network: nn.Module, data: Roles, name: str, **options: Any) -> Task:
    return Task(network, data.train.inputs[:1], data, name=name, **options)


def tickets(seeds: int, steps: int) -> list[Any]:
    """Rows of every round and control of every seed."""
    recipe = TrainingRecipe(learning_rate=1.2e-3, batch_size=60, optimizer="adamw", weight_decay=0.0, curve="constant")
    settings = TicketSettings(
        rounds=ROUNDS, share=0.2, steps=steps, allocation="uniform", output_rate=0.5, control_rounds=CONTROL_ROUNDS,
        controls=("reinitialised", "random"), check_every=max(1, steps // 10),
    )  # fmt: skip
    data = fashion_full(folder=IMAGES)

    def one(seed: int) -> list[Any]:
        search = TicketSearch(
            task_of(lenet(), data, "lenet"), settings, recipe, seed, CELLS / f"tickets_{steps}_{seed}"
        )
        search.run()
        return search.rows

    return [row for seed in range(seeds) for row in kept(CELLS, f"tickets_{steps}_{seed}", partial(one, seed))]


def schedules(seeds: int, steps: int, *, collect: bool) -> list[Any]:
    """Test accuracy of every schedule at equal training MACs."""
    data = fashion_subset()
    tasks = {
        "lenet": (task_of(lenet(), data, "lenet"), TrainingRecipe(learning_rate=0.05)),
        "cnn": (task_of(small_cnn(), data, "cnn", augment=flip), TrainingRecipe(learning_rate=0.1)),
    }

    def one(network: str, schedule: str, density: float, seed: int) -> dict[str, Any]:
        task, recipe = tasks[network]
        goal = PruningGoal(density=density, steps=steps, start="initial")
        result = train_pruned(task, SCHEDULES[schedule], goal, recipe=recipe, seed=seed)
        outputs = outputs_of(result.network, data.test.inputs)
        return {
            "network": network, "schedule": schedule, "density": density, "seed": seed, "steps": result.steps,
            "macs": result.macs, "test_accuracy": task.metric(outputs, data.test.targets),
        }  # fmt: skip

    cells = [(n, s, d, seed) for d in DENSITIES for n in tasks for seed in range(seeds) for s in SCHEDULES]
    names = {f"schedules_{steps}_{n}_{s}_{d}_{seed}": partial(one, n, s, d, seed) for n, s, d, seed in cells}
    return [
        kept(CELLS, name, make) for name, make in names.items() if not collect or (CELLS / f"{name}.json").is_file()
    ]
