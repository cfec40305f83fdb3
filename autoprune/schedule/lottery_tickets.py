"""Lottery tickets: iterative magnitude pruning with rewinding, measured at every density beside its controls."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from autoprune.files import atomic_write
from autoprune.ranges import Count, Natural, Share, check_fields
from autoprune.schedule.decision import Allocation, Decision, PruningGoal, Rewind, TrainingState
from autoprune.schedule.engine import PruningRun, divergence
from autoprune.schedule.masked_training import Snapshot, TrainingRecipe, initialised
from autoprune.schedule.signals import accuracy_of, loss_of
from autoprune.schedule.weight_masks import Masks, WeightMasking, layer_counts
from autoprune.seeding import derived_seed
from autoprune.task.task import Task

Control = Literal["reinitialised", "random", "one_shot"]
CONTROLS: tuple[Control, ...] = ("reinitialised", "random", "one_shot")
ROUND = "round.safetensors"  # the run after its last complete round
LINES = "rounds.jsonl"

Row = dict[str, Any]
OnRow = Callable[[Row], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketSettings:
    """How tickets are looked for."""

    rounds: Count = 12
    """Removals."""
    share: Share = 0.2
    """Of the weights that are left, removed in each round."""
    steps: Count = 2000
    """Of each training, the controls' as well."""
    rewind: Rewind = "initial"
    """What every round goes back to."""
    rewind_step: Natural = 0
    """Step that is rewound to, with rewind=step or learning_rate."""
    allocation: Allocation = "global"
    """One threshold for all weights, or "uniform": every layer loses the same share."""
    output_rate: Share = 1.0
    """With "uniform", the output layer loses this share of what the others lose; the paper has 0.5."""
    controls: tuple[Control, ...] = CONTROLS
    """What tickets are compared with, at the same density and training: the ticket's mask with new initial weights, a
    random mask of the same layer densities with the ticket's weights, all removed at once after the dense training."""
    control_rounds: tuple[Count, ...] | None = None
    """Rounds after which controls are trained; None: every one."""
    check_every: Count = 100
    """Steps between looks at the held-out loss, whose least is the early-stopping step."""

    def __post_init__(self) -> None:
        check_fields(self, "tickets")
        if self.rewind in ("step", "learning_rate") and self.rewind_step >= self.steps:
            raise ValueError(
                f"rewinding to step {self.rewind_step} needs a training that gets there, and each has {self.steps} "
                "steps; raise steps or lower rewind_step"
            )
        if not self.share < 1:
            raise ValueError(f"share is what a round removes of the weights that are left, below 1; got {self.share}")
        if late := [number for number in self.control_rounds or () if number > self.rounds]:
            raise ValueError(f"control_rounds names round {late[0]}, and there are {self.rounds}")
        if self.output_rate != 1 and self.allocation != "uniform":
            raise ValueError(f"output_rate={self.output_rate} needs allocation=uniform: one threshold knows no layers")

    def density(self, number: int) -> float:
        """Returns the density after so many rounds, but for rounding and the output layer."""
        return float((1 - self.share) ** number)

    def decision(self, state: TrainingState, number: int) -> Decision:
        """Returns what begins a round: round 0 trains the dense network.

        Args:
            state: What the schedule may know at this point.
            number: Of the round, from 0.
        """
        density: float | Mapping[str, float] = self.density(number)
        if self.allocation == "uniform" and number:
            rates = {layer.name: self.output_rate if layer.output else 1.0 for layer in state.layers}
            density = {name: (1 - self.share * rate) ** number for name, rate in rates.items()}
        return Decision(
            density=density,
            allocation=self.allocation,
            steps=self.steps,
            rewind=self.rewind if number else "none",
            rewind_step=self.rewind_step,
            save_steps=(self.rewind_step,) if self.rewind_step else (),
            cycle=True,
        )


@dataclass(eq=False)
class TicketSearch:
    """All rounds and controls of one seed. What is complete in the folder is not done again."""

    task: Task
    """Its model is where training begins, its data are trained on."""
    settings: TicketSettings
    """Rounds, densities and controls."""
    recipe: TrainingRecipe
    """Optimizer and learning rate."""
    seed: int
    """Of everything random."""
    folder: Path | None = None
    """Where complete rounds stand; None: nowhere."""
    keep: frozenset[str] = frozenset()
    """Layers that stay whole, by qualified name."""
    on_row: OnRow = lambda _: None
    """Called with every row that is complete."""
    rows: list[Row] = field(default_factory=list)
    """Those that are complete."""
    masks: list[Masks] = field(default_factory=list)
    """Of every round."""

    def run(self) -> PruningRun:
        """Returns the run after its last round; `rows` and `masks` hold what was measured.

        Raises:
            ValueError: The last round's density cannot be reached.
            FloatingPointError: A training diverged; everything complete stands in the folder.
        """
        settings, rounds = self.settings, self.settings.rounds
        run = self._new_run(settings.density(rounds), steps=settings.steps * (rounds + 1), seed=self.seed)
        self._load(run)
        for number in range(len(self.masks), rounds + 1):
            run.decide(settings.decision(run.state(), number))
            self._train(run, "ticket" if number else "dense", number)
            self.masks.append({name: mask.clone() for name, mask in run.training.masks.items()})
            self._save(run, number)
        last = run.snapshot()
        for number in self.settings.control_rounds or range(1, rounds + 1):
            for control in settings.controls:
                if not any(row["kind"] == control and row["round"] == number for row in self.rows):
                    self._control(run, control, number)
        run.restore(last)
        return run

    def _control(self, run: PruningRun, control: Control, number: int) -> None:
        """Trains one control, as long as the ticket was, from the weights that the ticket began at or new ones."""
        ticket = self.masks[number]
        kept = run.masking.kept(ticket) / run.masking.total
        other = self._new_run(kept, steps=self.settings.steps, seed=self.seed)
        point = 0 if self.settings.rewind == "initial" else self.settings.rewind_step
        state = run.training.points.get(point, run.training.points[0])
        generator = torch.Generator().manual_seed(derived_seed(self.seed, f"{control} {number}"))
        masks = ticket
        if control == "reinitialised":
            fresh = initialised(self.task.model, seed=derived_seed(self.seed, f"new weights {number}"))
            other.model.load_state_dict(fresh.state_dict())
        else:
            other.model.load_state_dict(state)
        if control == "random":
            masks = {name: _shuffled(mask, generator) for name, mask in ticket.items()}
        if control == "one_shot":
            masks = self._one_shot(run, ticket)
        other.impose(masks)
        self._train(other, control, number)

    def _one_shot(self, run: PruningRun, ticket: Masks) -> Masks:
        """The largest weights of the dense network after its training, as many in each layer or in all."""
        masking = run.masking
        if not isinstance(masking, WeightMasking):
            raise ValueError("tickets are found among single weights; choose granularity=weight")
        scores = {name: self._trained[name].abs() for name in ticket}
        counts = [int(ticket[layer.parameter].sum()) for layer in masking.free]
        if self.settings.allocation == "global":
            return masking.select(scores, None, total=masking.kept(ticket))
        sizes = [layer.weights for layer in masking.free]
        exact = layer_counts([count / size for count, size in zip(counts, sizes, strict=True)], sizes, sum(counts))
        return masking.select(scores, exact, total=sum(counts))

    def _new_run(self, density: float, *, steps: int, seed: int) -> PruningRun:
        goal = PruningGoal(density=density, steps=steps, counted="steps", start="initial", keep=self.keep)
        return PruningRun(self.task, goal, self.recipe, seed)

    def _train(self, run: PruningRun, kind: str, number: int) -> None:
        """Trains the round, looks at the held-out loss now and then, and writes a row."""
        data = self.task.data
        least, early, early_accuracy = float("inf"), 0, 0.0
        over = False
        while not over:
            try:
                over = run.train(self.settings.check_every)
            except FloatingPointError as error:
                raise divergence(error, run, self.folder) from error
            loss = loss_of(run, data.search)
            if loss < least:
                made = run.history[-1]["steps"] if run.interval is None else run.interval.made
                least, early, early_accuracy = loss, made, accuracy_of(run, data.test)
        row = {
            "kind": kind,
            "round": number,
            "density": run.density,
            "weights": run.masking.kept(run.training.masks),
            "seed": self.seed,
            "search_accuracy": accuracy_of(run, data.search),
            "search_loss": loss_of(run, data.search),
            "test_accuracy": accuracy_of(run, data.test),
            "early_step": early,
            "early_test_accuracy": early_accuracy,
            "training_loss": run.history[-1]["loss"],
            "macs": run.training.clock.macs,
        }
        self.rows.append(row)
        if self.folder is not None:
            text = "".join(json.dumps(each) + "\n" for each in self.rows)
            with atomic_write(self.folder / LINES, durable=True) as partial:
                partial.write_text(text)
        self.on_row(row)

    def _save(self, run: PruningRun, number: int) -> None:
        """The run as it is after a round, the masks of all rounds, and the weights of the dense training."""
        if number == 0:
            self._trained = {name: value.detach().clone() for name, value in run.training.parameters.items()}
        if self.folder is None:
            return
        masks = {f"round/{at}/{name}": mask for at, each in enumerate(self.masks) for name, mask in each.items()}
        trained = {f"trained/{name}": value for name, value in self._trained.items()}
        snapshot = run.snapshot()
        Snapshot({**snapshot.tensors, **masks, **trained}, {**snapshot.numbers, "rows": len(self.rows)}).save(
            self.folder / ROUND
        )

    def _load(self, run: PruningRun) -> None:
        """Goes on after the last complete round; what was begun is done again, and comes to the same."""
        file = None if self.folder is None else self.folder / ROUND
        if self.folder is None or file is None or not file.is_file():
            return
        whole = Snapshot.load(file)
        own = {name: tensor for name, tensor in whole.tensors.items() if not name.startswith(("round/", "trained/"))}
        run.restore(Snapshot(own, whole.numbers))
        for name, tensor in whole.tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "round":
                number, _, parameter = rest.partition("/")
                while len(self.masks) <= int(number):
                    self.masks.append({})
                self.masks[int(number)][parameter] = tensor
        self._trained = {
            name.partition("/")[2]: value for name, value in whole.tensors.items() if name.startswith("trained/")
        }
        lines = (self.folder / LINES).read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        done = len(self.masks)
        self.rows = [row for row in rows if row["kind"] not in ("dense", "ticket") or row["round"] < done]
        for row in self.rows:
            self.on_row(row)


def _shuffled(mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    order = torch.randperm(mask.numel(), generator=generator)
    return mask.flatten()[order].view_as(mask)
