"""The one engine of pruning over time: decisions are carried out, the network trains between them, budgets are met."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from autoprune.ranges import Seed, check_fields
from autoprune.schedule.channel_compaction import without_channels
from autoprune.schedule.channel_masks import ChannelMasking
from autoprune.schedule.decision import (
    Decision,
    LayerState,
    PruningGoal,
    Schedule,
    TrainingState,
    check_schedule,
    decision_of,
)
from autoprune.schedule.masked_training import Snapshot, Training, TrainingRecipe, initialised
from autoprune.schedule.maskings import masking_of, target_count
from autoprune.schedule.trained_network import PrunedTraining, Record
from autoprune.schedule.weight_masks import Masks, mask_overlap, uncounted_weights
from autoprune.task.copies import copied
from autoprune.task.shipped import shipped_task
from autoprune.task.task import Task

if TYPE_CHECKING:
    from autoprune.schedule.signals import SignalMeter

CHECKPOINT = "training.safetensors"  # in a run's folder
SAVE_EVERY = 200  # steps between checkpoints, beside those at decision points
SAVED_STEPS = 20.0  # of the dense network: masked channels are cut away for an interval that saves at least so many
ROUNDING = 1e-9  # by which sums of costs may miss a budget

OnInterval = Callable[[Record], None]


@dataclass(slots=True)
class Interval:
    """Training between two decisions."""

    decision: Decision
    """What the first of the two says."""
    start: float
    """What was spent before it."""
    position: float
    """Where the learning-rate curve was."""
    made: int = 0
    """Steps so far."""


@dataclass(eq=False)
class PruningRun:
    """One network on its way to a goal: `decide`, `train`, again until the budget is spent, then `finish`."""

    task: Task
    """Its model is where training begins, its data are trained on."""
    goal: PruningGoal
    """The density to end at, and what may be spent."""
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    """Optimizer and learning rate."""
    seed: Seed = 0
    """Of everything random."""
    cuts_channels: bool = True
    """Whether a network trains on without the channels that are gone, where that saves time, instead of with zeros."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        task, goal = self.task, self.goal
        task.require_labels("training while pruning")
        model = copied(task.model) if goal.start == "trained" else initialised(task.model, seed=self.seed)
        self.masking = masking_of(task, model, goal)
        self.target = target_count(self.masking, goal)
        self.training = Training(task, model, self.masking.layers, self.recipe, self.seed, self.masking.dense())
        self.decisions = 0
        self.interval: Interval | None = None
        self.history: list[Record] = []
        self.overlap = 1.0
        """Share of the weights that stay which had stayed before the last decision."""
        self._save: set[int] = set()
        self.meter: SignalMeter | None = None
        """Measures what a schedule sees beside the state, where one asks for it."""

    @property
    def model(self) -> nn.Module:
        return self.training.model

    @property
    def density(self) -> float:
        """Share of all weights that is kept."""
        return self.masking.kept(self.training.masks) / self.masking.total

    @property
    def progress(self) -> float:
        """Share of the training budget that is spent, in [0, 1]."""
        return min(1.0, self.training.clock.spent / self.goal.steps)

    @property
    def cost(self) -> float:
        """What a step spends, in steps of the dense network."""
        return self.training.relative_macs if self.goal.counted == "macs" else 1.0

    @property
    def over(self) -> bool:
        """There is no room for one more step in the training budget."""
        return self.training.clock.spent + self.cost > self.goal.steps * (1 + ROUNDING)

    @property
    def layers(self) -> tuple[LayerState, ...]:
        """The layers whose weights can be removed, as they are now."""
        kept = {name: float(mask.float().mean()) for name, mask in self.training.masks.items()}
        return tuple(
            LayerState(layer.name, layer.weights, kept.get(layer.parameter, 1.0), layer.output)
            for layer in self.masking.layers
            if not layer.fixed
        )

    def state(self) -> TrainingState:
        """Returns what a schedule sees."""
        clock, layers = self.training.clock, self.layers
        return TrainingState(
            decision=self.decisions,
            density=self.density,
            target=self.target / self.masking.total,
            progress=self.progress,
            budget=self.goal.steps,
            counted=self.goal.counted,
            cost=self.cost,
            step=clock.step,
            signals=None if self.meter is None else self.meter.measure().values,
            fixed=self.masking.total - sum(layer.weights for layer in layers),
            loss=sum(clock.losses) / len(clock.losses) if clock.losses else None,
            layers=layers,
        )

    def decide(self, decision: Decision) -> None:
        """Weights go and grow, and the network is rewound; the next interval begins.

        Raises:
            ValueError: The granularity, or what was saved, does not allow it.
        """
        training, clock = self.training, self.training.clock
        masks = self.masking.prune(training.weights, decision, least=self.target, gradients=self._charged_gradients)
        before = training.masks
        if decision.rewind == "none":
            training.set_masks(masks)
        else:
            at = 0 if decision.rewind == "initial" else decision.rewind_step
            training.set_masks(masks)
            training.rewind(at, weights=decision.rewind != "learning_rate")
        if decision.cycle and decision.rewind == "none":
            training.clock = replace(training.clock, position=0.0)
        self.interval = Interval(decision, training.clock.spent, training.clock.position)
        self.overlap = mask_overlap(before, masks)
        if clock.step == 0:
            self._save = set(decision.save_steps)
        if self.meter is not None:
            self.meter.removed()

    def impose(self, masks: Masks) -> None:
        """These masks, and no decision's, begin an interval with a learning-rate curve of its own."""
        self.training.set_masks(masks)
        self.training.clock = replace(self.training.clock, position=0.0)
        self.interval = Interval(Decision(density=self.density, cycle=True), self.training.clock.spent, 0.0)

    def train(self, steps: int | None = None) -> bool:
        """Trains through the interval, or for so many steps of it; returns whether it is over, and recorded.

        Args:
            steps: At most; None: all.

        Raises:
            FloatingPointError: The loss is not finite.
            ValueError: The decision leaves nothing to train.
        """
        interval = self.interval
        if interval is None:
            raise RuntimeError("decide() comes before train()")
        end = self._end(interval)
        cost, macs = self.cost, self.training.relative_macs
        left = math.ceil((end - self.training.clock.spent) / cost)
        most = left if steps is None else min(left, steps)
        if self.cuts_channels and isinstance(self.masking, ChannelMasking) and (1 - macs) * most >= SAVED_STEPS:
            plan, ranking = self.masking.plan(self.training.masks)
            with without_channels(self.training, self.masking.structure, plan, ranking) as small:
                over = self._steps(small, interval, end=end, cost=cost, macs=macs, most=steps)
        else:
            over = self._steps(self.training, interval, end=end, cost=cost, macs=macs, most=steps)
        if not over:
            return False
        if not interval.made and not self.over:
            raise ValueError(
                f"decision {self.decisions} of the schedule trains for no step: until={interval.decision.until:g} is "
                f"spent already, at {self.progress:g} of the training budget"
            )
        self.history.append(self._record(interval))
        self.decisions += 1
        self.interval = None
        return True

    def _end(self, interval: Interval) -> float:
        """What is spent when the interval is over."""
        decision, budget = interval.decision, self.goal.steps
        end = min(budget, decision.until * budget)
        return end if decision.steps is None else min(end, interval.start + decision.steps * self.cost)

    def _steps(
        self, training: Training, interval: Interval, *, end: float, cost: float, macs: float, most: int | None
    ) -> bool:
        """Steps until the interval is over, which is returned, or so many."""
        decision, budget = interval.decision, self.goal.steps
        cycle = decision.cycle or decision.rewind != "none"
        last = None if most is None else interval.made + most
        with training.training_mode():
            while (spent := training.clock.spent) < end - ROUNDING * budget and spent + cost <= budget * (1 + ROUNDING):
                if interval.made == last:
                    return False
                if cycle:
                    part = (spent - interval.start) / max(end - interval.start, ROUNDING)
                    position = interval.position + (1 - interval.position) * part
                else:
                    position = spent / budget
                training.clock = replace(training.clock, position=position)
                training.advance(cost=cost, macs=macs, rate=self.recipe.rate(position))
                interval.made += 1
                at = training.clock.cycle_step
                if at in self._save and at not in training.points:
                    training.save_point()
        return True

    def finish(self) -> PrunedTraining:
        """Exactly the target's weights stay; what the schedule left over goes without training."""
        training = self.training
        before = self.masking.kept(training.masks)
        masks = self.masking.final(training.weights, count=self.target)
        training.set_masks(masks)
        kept = self.masking.kept(masks)
        model = training.model.eval()
        network = self.masking.finish(model, masks) if isinstance(self.masking, ChannelMasking) else model
        clock = training.clock
        return PrunedTraining(
            network=network,
            masks=masks,
            history=tuple(self.history),
            density=kept / self.masking.total,
            weights=kept,
            steps=clock.step,
            spent=clock.spent,
            macs=clock.macs,
            removed_last=before - kept,
            uncounted=uncounted_weights(model, self.masking.layers),
        )

    def snapshot(self) -> Snapshot:
        """Returns a copy of everything that the rest of the run depends on."""
        inner = self.training.snapshot()
        interval = None if self.interval is None else asdict(self.interval)
        run = {
            "conditions": self.conditions,
            "decisions": self.decisions,
            "history": [dict(record) for record in self.history],
            "interval": interval,
            "save": sorted(self._save),
            "overlap": self.overlap,
        }
        if self.meter is None:
            return Snapshot(inner.tensors, {**inner.numbers, "run": run})
        before = {f"before/{name}": value for name, value in self.meter.before.items()}
        memory = dict(self.meter.memory)
        return Snapshot({**inner.tensors, **before}, {**inner.numbers, "run": run, "memory": memory})

    @property
    def conditions(self) -> Record:
        """What a run that goes on has to share with the one that was cut off: JSON values."""
        goal = {**asdict(self.goal), "keep": sorted(self.goal.keep)}
        return {"task": self.task.name, "goal": goal, "recipe": asdict(self.recipe), "seed": self.seed}

    def resume(self, path: Path) -> None:
        """The run is what it was when the file was saved. Raises ValueError where that was another run."""
        snapshot = Snapshot.load(path)
        before = snapshot.numbers["run"]["conditions"]
        if before != self.conditions:
            differing = [key for key, value in self.conditions.items() if before.get(key) != value]
            raise ValueError(
                f"{path} is of a run with another {' and '.join(differing)}; go on with those, or use another folder"
            )
        self.restore(snapshot)

    def restore(self, snapshot: Snapshot) -> None:
        """The run is what it was when the snapshot was taken."""
        self.training.restore(snapshot)
        run = snapshot.numbers["run"]
        self.decisions, self.history = run["decisions"], [dict(record) for record in run["history"]]
        self._save, self.overlap = set(run["save"]), run["overlap"]
        interval = run["interval"]
        if interval is not None:
            decision = dict(interval["decision"])
            decision["save_steps"] = tuple(decision["save_steps"])
            interval = Interval(**{**interval, "decision": Decision(**decision)})
        self.interval = interval
        if self.meter is not None and "memory" in snapshot.numbers:
            tensors = snapshot.tensors.items()
            self.meter.memory = dict(snapshot.numbers["memory"])
            self.meter.before = {name[len("before/") :]: t for name, t in tensors if name.startswith("before/")}

    def _charged_gradients(self) -> Mapping[str, torch.Tensor]:
        clock = self.training.clock
        self.training.clock = replace(clock, spent=clock.spent + 1.0, macs=clock.macs + 1.0)
        return self.training.gradients()

    def _record(self, interval: Interval) -> Record:
        clock = self.training.clock
        return {
            "decision": self.decisions,
            "density": self.density,
            "steps": interval.made,
            "step": clock.step,
            "spent": clock.spent,
            "macs": clock.macs,
            "loss": sum(clock.losses) / len(clock.losses) if clock.losses else None,
            "rewind": interval.decision.rewind,
            "regrow": interval.decision.regrow,
            "overlap": self.overlap,
        }


def train_pruned(
    task: Task | str,
    schedule: Schedule,
    goal: PruningGoal,
    *,
    recipe: TrainingRecipe | None = None,
    seed: int = 0,
    folder: Path | None = None,
    on_interval: OnInterval | None = None,
) -> PrunedTraining:
    """Trains a network while a schedule prunes it; the goal's density and training budget are met.

    >>> from autoprune.schedule.schedules import cubic
    >>> pruned = train_pruned(task, cubic(), PruningGoal(density=0.1, steps=1000))

    Args:
        task: Its network (which stays as it is), train role, loss and augmentation; or a shipped task's name.
        schedule: Asked at every decision point.
        goal: Density, training budget and granularity.
        recipe: Optimizer and learning rate; None: the defaults.
        seed: Of everything that is drawn.
        folder: Where the run is saved, and goes on from where it was cut off, bit for bit; None: nowhere.
        on_interval: Called with the record of each interval.

    Raises:
        ValueError: The density, the budget or a decision is impossible; before training where that can be known.
        FloatingPointError: The loss is not finite; the last checkpoint stands in the folder.
    """
    check_schedule(schedule)
    task = shipped_task(task) if isinstance(task, str) else task
    run = PruningRun(task, goal, recipe or TrainingRecipe(), seed)
    if isinstance(decisions := getattr(schedule, "decisions", None), int):
        from autoprune.schedule.signals import SignalMeter  # which knows the engine

        run.meter = SignalMeter(run, decisions)
    checkpoint = None if folder is None else folder / CHECKPOINT
    if checkpoint is not None and checkpoint.is_file():
        run.resume(checkpoint)

    def save() -> None:
        if checkpoint is not None:
            run.snapshot().save(checkpoint)

    while not run.over:
        if run.interval is None:
            run.decide(decision_of(schedule, run.state()))
            save()
        try:
            while not run.train(SAVE_EVERY):
                save()
        except FloatingPointError as error:
            raise divergence(error, run, folder) from error
        save()
        if on_interval is not None:
            on_interval(run.history[-1])
    return run.finish()


def divergence(error: FloatingPointError, run: PruningRun, folder: Path | None) -> FloatingPointError:
    """Returns the error with what was pruned before it, and where that stands.

    Args:
        error: Of the step that was not made.
        run: The training.
        folder: Where it is saved; None: nowhere.
    """
    where = "" if folder is None else f"; what was trained up to there stands in {folder}"
    return FloatingPointError(f"at a density of {run.density:.4g}, after {run.decisions} decisions, {error}{where}")
