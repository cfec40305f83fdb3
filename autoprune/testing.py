"""Conformance checks for whatever is written for autoprune: call them from your own tests.

Each raises AssertionError with the rule that is broken. They use a small untrained network on random images, unless you
hand them something of your own; none takes longer than a few seconds.

>>> from autoprune.importance.random_scores import random
>>> check_criterion(random)
"""

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor, nn

from autoprune.cost.model import CostModel, never_falls
from autoprune.device.device import Device
from autoprune.evaluation.metered import Record
from autoprune.evaluation.outcome import Outcome
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.importance.criterion import CriterionInputs, Importance, criterion_name, rank, scored
from autoprune.problem.problem import Problem, Search
from autoprune.problem.spec import ProblemSpec
from autoprune.recover.recovery import Recovery
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task.samples import cut, joined_samples, mapped, number_of
from autoprune.task.task import Role, Roles, Task, outputs_of
from autoprune.tracking import TrackedRun, Tracking

SAMPLES = 40  # of each role of the small task
EVALUATIONS = 60


def small_task(seed: int = 0) -> Task:
    """Returns an untrained classifier of 8×8 images with four groups, and random data."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)),
        )
    roles = [
        Role(torch.randn(SAMPLES, 1, 8, 8, generator=generator), torch.randint(4, (SAMPLES,), generator=generator))
        for _ in range(4)
    ]
    return Task(model.eval(), torch.zeros(1, 1, 8, 8), Roles(*roles), name="small", budget="macs:0.5")


def small_problem(evaluations: int, *, folder: Path, record: Record) -> Problem:
    """Returns a search's problem on the small task.

    Args:
        evaluations: Plans that the search may have evaluated.
        folder: Where a search leaves a policy.
        record: Takes each outcome, its number and its phase.
    """
    evaluation = EvaluationSettings(batch_size=50, race=None, store=None)
    problem = Problem.prepare(small_task(), ProblemSpec(evaluation=evaluation))
    return problem.limited(evaluations, record=record, folder=folder)


def check_search(
    search: Search, *, problem: Callable[..., Problem] = small_problem, evaluations: int = EVALUATIONS
) -> None:
    """A search returns a plan inside the budget that it had evaluated, repeats itself, and keeps to its evaluations.

    Args:
        search: What conf/agent would name.
        problem: Makes what is searched anew, as small_problem does.
        evaluations: Enough for the search.
    """
    runs = []
    for seed in (0, 0, 1):
        plans: list[tuple[int, ...]] = []

        def record(outcome: Outcome, evaluation: int, phase: str, plans: list[tuple[int, ...]] = plans) -> None:
            plans.append(outcome.plan.kept)

        with tempfile.TemporaryDirectory() as folder:
            given = problem(evaluations, folder=Path(folder), record=record)
            with _global_randomness_is_left():
                plan = search(given, rng=np.random.default_rng(seed))
        kept = np.array(plan.kept)
        assert given.structure.plan(kept) == plan, "a search returns a plan of the problem's structure"
        assert given.projector.budget.meets(kept), f"the plan {plan.kept} exceeds the budget"
        assert given.objective.spent <= evaluations, "a search spends no more evaluations than it has"
        assert plan.kept in plans, "a search evaluates the plan that it returns"
        runs.append((plan.kept, plans))
    assert runs[0] == runs[1], "the same seed gives the same plans in the same order"
    with tempfile.TemporaryDirectory() as folder:
        given = problem(1, folder=Path(folder), record=lambda *_: None)
        try:
            search(given, rng=np.random.default_rng(0))
        except ValueError:
            assert given.objective.spent == 0, "what has too few evaluations is refused before anything is charged"


def check_criterion(importance: Importance, *, task: Task | None = None) -> None:
    """A criterion scores every unit of every group with finite numbers, repeats itself, and changes nothing.

    Args:
        importance: What conf/importance would name.
        task: Whose network is scored; None for the small one.
    """
    task = small_task() if task is None else task
    structure = find_structure(task.model, task.example_input, keep=task.keep, prune=task.prune)
    role, before = task.data.calibration, copy.deepcopy(task.model.state_dict())
    digest, scores = role.digest, []
    for seed in (0, 0):
        with _global_randomness_is_left():
            generator = torch.Generator().manual_seed(seed)
            given = CriterionInputs(task.model, structure, role, task.loss, task.forward, generator)
            scores.append(scored(importance, given))
    rank(scores[0], structure, criterion=criterion_name(importance))  # says what does not fit
    for name, values in scores[0].items():
        assert torch.equal(values, scores[1][name]), f"the same generator gives other scores of group {name!r}"
    _check_unchanged(task.model, before)
    assert role.digest == digest, "a criterion leaves the samples as they were"


def check_cost_model(cost: CostModel, structure: Structure, *, seed: int = 0) -> None:
    """A cost is finite, the same for one plan and for many, and what it says of itself is true.

    Args:
        cost: Of plans of `structure`.
        structure: Groups that plans decide on.
        seed: Draws plans.
    """
    rng = np.random.default_rng(seed)
    kept = np.stack([rng.choice(group.levels, 20) for group in structure.groups], axis=1).astype(np.int64)
    kept[:2] = structure.units, structure.floor
    costs = np.asarray(cost(kept))
    assert cost.name, "a cost has a name"
    assert cost.unit, "a cost has a unit"
    assert costs.shape == (20,), f"the costs of plans [20, groups] have shape [20], not {costs.shape}"
    assert np.isfinite(costs).all(), f"costs are finite numbers, got {costs}"
    assert (costs >= 0).all(), f"costs are not negative, got {costs}"
    assert costs.tolist() == [float(cost(row)) for row in kept], "a plan costs the same alone and among others"
    for index, group in enumerate(structure.groups):
        levels, changed = np.array(group.levels), np.repeat(kept[:, None], len(group.levels), axis=1)
        changed[:, :, index] = levels
        along = np.asarray(cost.along(kept, index, levels))
        assert np.allclose(along, cost(changed)), f"`along` says something else of group {group.name!r} than the cost"
        if never_falls(cost):
            assert (np.diff(along, axis=1) >= -1e-9).all(), f"never_falls, but it does along group {group.name!r}"


def check_recovery(recovery: Recovery, *, task: Task | None = None) -> None:
    """A recovery returns a trained copy of the same shape, repeats itself, and sees the train role only.

    Args:
        recovery: What conf/recover would name.
        task: Whose network is trained; None for the small one.
    """
    task = small_task() if task is None else task
    unseen = {
        name: Role(mapped(role.inputs, _emptied), role.targets, role.ids)
        for name, role in task.data.items()
        if name != "train"
    }
    task = task.with_data(Roles(**{**dict(task.data.items()), **unseen}))
    before, trained = copy.deepcopy(task.model.state_dict()), []
    for _ in range(2):
        steps: list[tuple[int, int]] = []

        def on_step(step: int, of: int, loss: float, steps: list[tuple[int, int]] = steps) -> None:
            assert math.isfinite(loss), f"the loss of step {step} is {loss}: does it see another role than train?"
            steps.append((step, of))

        with _global_randomness_is_left():
            generator = torch.Generator(task.device).manual_seed(0)
            network = recovery(task.model, task, teacher=task.model, generator=generator, on_step=on_step)
        assert not network.training, "a recovery returns a network in eval mode"
        assert network is not task.model, "a recovery returns another network than it was given"
        counted = [step for step, _ in steps]
        assert counted == sorted(set(counted)), f"steps are counted upwards, once each, not {counted}"
        trained.append(network.state_dict())
    _check_unchanged(task.model, before)
    assert {n: v.shape for n, v in trained[0].items()} == {n: v.shape for n, v in before.items()}, "shapes stay"
    for name, values in trained[0].items():
        assert torch.equal(values, trained[1][name]), f"the same generator gives other weights of {name!r}"
        assert torch.isfinite(values).all(), f"the weights of {name!r} are not finite"


def check_device(device: Device, *, task: Task | None = None) -> None:
    """A device has a name, and its costs are cost models; where it is at hand, networks take time on it.

    Args:
        device: What conf/device would name.
        task: Whose network runs there; None for the small one.
    """
    task = small_task() if task is None else task
    structure = find_structure(task.model, task.example_input, keep=task.keep, prune=task.prune)
    assert device.name, "a device has a name"
    for name, cost in device.costs(task, structure).items():
        assert cost.name == name, f"the cost {name!r} is called {cost.name!r}"
        check_cost_model(cost, structure)
    timings = device.latencies(task, {"dense": task.model})
    if timings is not None:
        assert (np.asarray(timings.minimum) > 0).all(), f"a network takes time, got {timings.minimum} s"


def check_tracker(tracking: Tracking) -> None:
    """A tracker takes what a run measures, leaves out what is no number, and can be closed.

    Args:
        tracking: What conf/tracking would name; it starts a tracker.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tracker = tracking(TrackedRun(folder, "check", group="checks", job_type="search", config={"seed": 0}))
        (folder / "page.html").write_text("<p>nothing</p>", encoding="utf-8")
        for step in (1, 2):
            tracker.log({"search/score": 0.5, "search/best": math.nan, "cost/macs": None}, axis="evaluation", step=step)
        tracker.summary({"chosen": "searched", "score": 0.5})
        tracker.table("groups", ["name", "kept"], [["conv1", 3]])
        tracker.bars("plan", ["conv1"], [0.5], title="density")
        tracker.page("report", folder / "page.html")
        tracker.artifact("plan", folder / "page.html", kind="plan")
        assert tracker.run_id is None or isinstance(tracker.run_id, str), "a run is known by text, or not at all"
        tracker.close(failed=False)


def check_task(task: Task) -> None:
    """A task's network answers every role with finite numbers, sample by sample, and groups of it can be pruned.

    Args:
        task: With its network and data.
    """
    before = copy.deepcopy(task.model.state_dict())
    assert not task.model.training, "the network is in eval mode"
    samples = number_of(task.example_input)
    assert samples == 1, f"the example input is one sample, not {samples}"
    for name, role in task.data.items():
        few = role[: min(4, len(role))]
        outputs = outputs_of(task.model, few.inputs, task.forward)
        again = joined_samples([outputs_of(task.model, part, task.forward) for part in cut(few.inputs, 1)])
        for output, alone in zip(task.tensors(outputs).values(), task.tensors(again).values(), strict=True):
            assert len(output) == len(few), f"role {name!r}: {len(few)} samples have {len(output)} outputs"
            assert torch.isfinite(output).all(), f"role {name!r}: outputs are not finite"
            assert torch.allclose(output, alone, atol=1e-3, rtol=1e-3), f"role {name!r}: samples depend on their batch"
        if few.targets is None:
            continue
        assert math.isfinite(float(task.metric(outputs, few.targets))), f"role {name!r}: the metric is not finite"
        loss = task.loss(mapped(outputs, _differentiable), few.targets)
        assert loss.ndim == 0, f"role {name!r}: the loss is one number, not {tuple(loss.shape)}"
        assert loss.requires_grad, f"role {name!r}: the loss has no gradient"
    structure = find_structure(task.model, task.example_input, keep=task.keep, prune=task.prune)
    assert structure.groups, f"nothing of the network can be pruned: {structure.unprunable}"
    _check_unchanged(task.model, before)


def _emptied(tensor: Tensor) -> Tensor:
    """NaN where there are numbers."""
    return torch.full_like(tensor, math.nan) if tensor.is_floating_point() else tensor


def _differentiable(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor


def check_environment(env: gymnasium.Env[Any, Any], *, seed: int = 0) -> None:
    """An environment is Gymnasium's, says what became of every action, and ends in a plan inside the budget.

    Args:
        env: Anew, such as gym.make returns.
        seed: Of the actions.
    """
    inner: Any = env.unwrapped

    def ends(steps: int, info: dict[str, Any]) -> None:
        assert inner.projector.budget.meets(np.array(info["plan"].kept)), "an episode ends inside the budget"
        assert info["outcome"].plan == info["plan"]

    _check_episodes(inner, seed=seed, ends=ends)


def check_training_environment(env: gymnasium.Env[Any, Any], *, seed: int = 0) -> None:
    """An environment that trains is Gymnasium's, repeats itself, and meets its density and its training budget.

    Args:
        env: Anew, such as gym.make returns.
        seed: Of the actions.
    """
    inner: Any = env.unwrapped

    def ends(steps: int, info: dict[str, Any]) -> None:
        assert steps == inner.settings.decisions, "an episode has as many steps as decisions"
        pruned, pruning = info["pruned"], inner.pruning
        assert pruned.weights <= pruning.target, "an episode ends at its density"
        assert pruned.weights == pruning.target or pruning.goal.granularity == "channel", "to one weight"
        assert pruned.spent <= pruning.goal.steps * (1 + 1e-6), "an episode keeps to its training budget"
        assert pruned.spent > pruning.goal.steps - 2, "and spends it, to one step"

    _check_episodes(inner, seed=seed, ends=ends)


def _check_episodes(inner: Any, *, seed: int, ends: Callable[[int, dict[str, Any]], None]) -> None:
    """What every environment keeps to; `ends` takes an episode's number of steps and the info of its last one."""
    check_env(inner, skip_render_check=True)
    assert len(inner.feature_names) == math.prod(inner.observation_space.shape), "every number observed has a name"
    histories = []
    for _ in range(2):
        inner.action_space.seed(seed)
        observation, _ = inner.reset(seed=seed)
        over, history, info = False, [observation.tolist()], dict[str, Any]()
        while not over:
            observation, reward, over, truncated, info = inner.step(inner.action_space.sample())
            assert not truncated, "episodes have one length"
            assert inner.action_space.contains(info["executed_action"]), "executed_action is an action"
            assert inner.observation_space.contains(observation), "features stay inside their bounds"
            history.append((observation.tolist(), reward))
        ends(len(history) - 1, info)
        histories.append(history)
    assert histories[0] == histories[1], "the same seed and actions give the same episode"
    inner.reset()
    shape = inner.action_space.shape or ()
    for actions in (np.full(shape, math.nan), np.full(shape, math.inf), np.zeros((*shape, 3)), "all", None):
        assert _refusal(inner.step, actions).startswith("actions must"), f"the action {actions!r} is not refused"


def _refusal(call: Callable[[Any], Any], value: Any) -> str:
    """The message of the ValueError that a call ends in, or nothing."""
    try:
        call(value)
    except ValueError as error:
        return str(error)
    return ""


def _check_unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    assert not model.training, "the network stays in eval mode"
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name]), f"the network's {name!r} was changed"


@contextmanager
def _global_randomness_is_left() -> Iterator[None]:
    """Chance comes from the generator that was given, never from the process's own."""
    before = torch.get_rng_state(), _numpy_state()
    yield
    assert torch.equal(before[0], torch.get_rng_state()), "torch's global generator was drawn from"
    assert before[1] == _numpy_state(), "numpy's global generator was drawn from"


def _numpy_state() -> tuple[bytes, int, int]:
    """Of numpy's global generator: its numbers, how many of them are used up, and whether a normal one is left."""
    state = np.random.get_state(legacy=False)
    return state["state"]["key"].tobytes(), int(state["state"]["pos"]), int(state["has_gauss"])
