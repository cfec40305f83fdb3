"""Wrong calls of the public interface end in a sentence that names what is wrong, never in Python's own bare errors.

Any message that comes from autoprune's own `raise` will do; what the sentences say is tested beside what raises them.
"""

import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune import OutputKind, Policy, Problem, ProblemSpec, PruningPlan, Role, Roles, Task, load
from autoprune.cost.counted import CostSettings
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from tests.models import PRUNABLE
from tests.tasks import prepared, tiny_task

NETWORK = PRUNABLE["plain"]
MODEL, X = NETWORK.model(), NETWORK.inputs()


class ReturnsNone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> None:
        self.linear(x)


def samples(count: int = 40, seed: int = 1) -> Role:
    return NETWORK.role(count, seed=seed)


def pile(**changes: Any) -> Roles:
    roles = {"train": samples(64, 1), "calibration": samples(32, 2), "search": samples(60, 3), "test": samples(40, 4)}
    return Roles(**{**roles, **changes})


ROLE = samples()
TASK = tiny_task("plain")
STRUCTURE = find_structure(MODEL, X)
ONES = np.ones_like(STRUCTURE.units)
HALF = STRUCTURE.plan(np.maximum(1, STRUCTURE.units // 2))
RANKING = {group.name: torch.arange(group.units) for group in STRUCTURE.groups}


def ranking(make: Callable[[int], Any]) -> Any:
    return {group.name: make(group.units) for group in STRUCTURE.groups}


def enter(context: Any) -> None:
    with context:
        pass


def task(**changes: Any) -> Task:
    return Task(**{"model": MODEL, "example_input": X, "data": pile(), **changes})


def env(name: str = "Layerwise", **options: Any) -> Any:
    return gymnasium.make(f"autoprune/{name}-v0", **{"task": TASK, "budget": "macs:0.5", **options})


def step(action: Any, name: str = "Layerwise") -> Any:
    made = env(name, **({"levels": 4} if name == "Levels" else {}))
    made.reset(seed=0)
    return made.unwrapped.step(action)


def plan(kept: Any) -> PruningPlan:
    return STRUCTURE.plan(kept)


CALLS: dict[str, Callable[[], Any]] = {
    # Role / Roles
    "role_list": lambda: Role([1.0, 2.0], [1, 2]),
    "role_none": lambda: Role(None, ROLE.targets),
    "role_str": lambda: Role("data", ROLE.targets),
    "role_lengths": lambda: Role(ROLE.inputs, ROLE.targets[:3]),
    "role_scalar": lambda: Role(torch.tensor(1.0), torch.tensor(1)),
    "role_targets_none_index": lambda: Role(ROLE.inputs, None)["a"],
    "role_index_float": lambda: ROLE[1.5],
    "role_index_far": lambda: ROLE[1000],
    "roles_none": lambda: pile(search=None),
    "roles_tensor": lambda: pile(search=ROLE.inputs),
    "roles_tuple": lambda: pile(search=(ROLE.inputs, ROLE.targets)),
    "roles_split_none": lambda: Roles.split(None),
    "roles_split_role": lambda: Roles.split(5),
    "roles_split_arrays": lambda: Roles.split(np.zeros((100, 3))),
    "roles_split_few": lambda: Roles.split(torch.utils.data.TensorDataset(ROLE.inputs[:2], ROLE.targets[:2])),
    # Task
    "task_model_none": lambda: task(model=None),
    "task_model_class": lambda: task(model=nn.Linear),
    "task_model_function": lambda: task(model=lambda x: X),
    "task_model_state_dict": lambda: task(model=MODEL.state_dict()),
    "task_returns_none": lambda: Task(
        ReturnsNone(),
        torch.zeros(1, 4),
        Roles(
            *[
                Role(torch.rand(20, 4, generator=torch.Generator().manual_seed(i)), torch.zeros(20, dtype=torch.long))
                for i in range(4)
            ]
        ),
    ),
    "task_example_none": lambda: task(example_input=None),
    "task_example_no_batch": lambda: task(example_input=X[0]),
    "task_data_dict": lambda: task(data={"train": samples()}),
    "task_data_role": lambda: task(data=samples()),
    "task_data_loader": lambda: task(
        data=torch.utils.data.DataLoader(torch.utils.data.TensorDataset(ROLE.inputs, ROLE.targets))
    ),
    "task_labels_range": lambda: task(data=pile(train=Role(samples(64, 1).inputs, samples(64, 1).targets + 1000))),
    "task_labels_negative": lambda: task(data=pile(train=Role(samples(64, 1).inputs, samples(64, 1).targets - 50))),
    "task_keep_str": lambda: task(keep="conv1"),
    "task_keep_int": lambda: task(keep=5),
    "task_keep_true": lambda: task(keep=True),
    "task_keep_ints": lambda: task(keep=[1, 2]),
    "task_keep_none": lambda: task(keep=None),
    "task_budget_number": lambda: prepared(task(budget=0.5)),
    "task_budget_list": lambda: prepared(task(budget=["macs:0.5", 5])),
    "task_metric_str": lambda: task(metric="accuracy"),
    "task_metric_none_value": lambda: prepared(task(metric=lambda o, t: None)),
    "task_metric_array": lambda: prepared(task(metric=lambda o, t: (o.argmax(1) == t).float())),
    "task_loss_str": lambda: task(loss="ce"),
    "task_loss_none_value": lambda: task(loss=lambda o, t: None),
    "task_forward_none": lambda: task(forward=None),
    "task_forward_str": lambda: task(forward="f"),
    "task_forward_args": lambda: task(forward=lambda m: m),
    "task_block_zero": lambda: task(block=0),
    "task_block_str": lambda: task(block="10"),
    "task_name_none": lambda: task(name=None),
    "task_name_int": lambda: task(name=5),
    "task_levels_zero": lambda: prepared(task(levels=0)),
    "task_levels_str": lambda: prepared(task(levels="3")),
    "task_proxy_neg": lambda: task(proxy_samples=-1),
    "task_recovery_steps_neg": lambda: task(recovery_steps=-1),
    "task_kind_wrong": lambda: task(kind="clasification"),
    "task_kind_int": lambda: task(kind=3),
    "task_prune_str": lambda: task(prune="heads") and prepared(task(prune="heads")),
    "task_augment_str": lambda: task(augment="flip"),
    "task_example_inputs_tensor": lambda: task(example_inputs=X),
    "task_example_inputs_none": lambda: task(example_inputs=None),
    # find_structure
    "structure_model_none": lambda: find_structure(None, X),
    "structure_example_numpy": lambda: find_structure(MODEL, X.numpy()),
    "structure_example_none": lambda: find_structure(MODEL, None),
    "structure_keep_str": lambda: find_structure(MODEL, X, keep="conv1"),
    "structure_keep_unknown": lambda: find_structure(MODEL, X, keep={"nope"}),
    "structure_round_float": lambda: find_structure(MODEL, X, round_to=1.5),
    "structure_round_zero": lambda: find_structure(MODEL, X, round_to=0),
    "structure_round_str": lambda: find_structure(MODEL, X, round_to="4"),
    "structure_min_neg": lambda: find_structure(MODEL, X, min_units=-1),
    "structure_prune_str": lambda: find_structure(MODEL, X, prune="heads"),
    "structure_returns_none": lambda: find_structure(ReturnsNone(), torch.zeros(1, 4)),
    "structure_wrong_shape": lambda: find_structure(MODEL, torch.zeros(1, 1)),
    # plan
    "plan_float": lambda: plan(np.array([1.5] * len(STRUCTURE.groups))),
    "plan_list_float": lambda: plan([1.5] * len(STRUCTURE.groups)),
    "plan_short": lambda: plan(np.array([1])),
    "plan_nan": lambda: plan(np.full(len(STRUCTURE.groups), np.nan)),
    "plan_none": lambda: plan(None),
    "plan_str": lambda: plan("all"),
    "plan_2d": lambda: plan(np.ones((2, len(STRUCTURE.groups)), int)),
    "plan_dict": lambda: plan(dict.fromkeys(STRUCTURE.names, 1)),
    "plan_neg": lambda: plan(-STRUCTURE.units),
    "plan_too_many": lambda: plan(STRUCTURE.units + 1),
    "plan_bool": lambda: plan(np.ones(len(STRUCTURE.groups), bool)),
    "PruningPlan_doubled": lambda: PruningPlan(("a", "a"), (4, 4), (1, 2)),
    "PruningPlan_float": lambda: PruningPlan(("a", "b"), (4, 4), (1.5, 2)),
    "PruningPlan_none": lambda: PruningPlan(None, (4, 4), (1, 2)),
    "PruningPlan_str_kept": lambda: PruningPlan(("a",), (4,), ("2",)),
    "from_sparsity_str": lambda: PruningPlan.from_sparsity({"a": 4}, {"a": "half"}),
    "from_sparsity_list": lambda: PruningPlan.from_sparsity({"a": 4}, [0.5]),
    "from_sparsity_none": lambda: PruningPlan.from_sparsity({"a": 4}, None),
    "from_json_missing": lambda: PruningPlan.from_json({"a": {"units": 4}}),
    "from_json_list": lambda: PruningPlan.from_json([1, 2]),
    "from_json_number": lambda: PruningPlan.from_json({"a": 4}),
    # masked / shrink
    "shrink_plan_array": lambda: shrink(MODEL, STRUCTURE, STRUCTURE.units, RANKING),
    "shrink_plan_dict": lambda: shrink(MODEL, STRUCTURE, {"a": 1}, RANKING),
    "shrink_ranking_none": lambda: shrink(MODEL, STRUCTURE, plan(ONES), None),
    "shrink_ranking_missing": lambda: shrink(MODEL, STRUCTURE, plan(ONES), {}),
    "shrink_ranking_list": lambda: shrink(MODEL, STRUCTURE, plan(ONES), ranking(lambda n: list(range(n)))),
    "shrink_ranking_numpy": lambda: shrink(MODEL, STRUCTURE, plan(ONES), ranking(lambda n: np.arange(n))),
    "shrink_ranking_short": lambda: shrink(MODEL, STRUCTURE, HALF, ranking(lambda n: torch.zeros(1, dtype=torch.long))),
    "shrink_ranking_range": lambda: shrink(MODEL, STRUCTURE, HALF, ranking(lambda n: torch.arange(n) + 1000)),
    "shrink_ranking_float": lambda: shrink(MODEL, STRUCTURE, HALF, ranking(lambda n: torch.rand(n))),
    "shrink_ranking_doubled": lambda: shrink(
        MODEL, STRUCTURE, HALF, ranking(lambda n: torch.zeros(n, dtype=torch.long))
    ),
    "shrink_other_model": lambda: shrink(nn.Linear(3, 3), STRUCTURE, HALF, RANKING),
    "shrink_other_plan": lambda: shrink(MODEL, STRUCTURE, PruningPlan(("a",), (4,), (2,)), RANKING),
    "shrink_structure_none": lambda: shrink(MODEL, None, STRUCTURE.dense, RANKING),
    "shrink_model_none": lambda: shrink(None, STRUCTURE, STRUCTURE.dense, RANKING),
    "masked_plan_array": lambda: enter(masked(MODEL, STRUCTURE, STRUCTURE.units, RANKING)),
    "masked_ranking_missing": lambda: enter(masked(MODEL, STRUCTURE, plan(ONES), {})),
    "masked_ranking_numpy": lambda: enter(masked(MODEL, STRUCTURE, plan(ONES), ranking(lambda n: np.arange(n)))),
    "masked_other_model": lambda: enter(masked(nn.Linear(3, 3), STRUCTURE, plan(ONES), RANKING)),
    "masked_model_none": lambda: enter(masked(None, STRUCTURE, plan(ONES), RANKING)),
    # load, policy
    "load_none": lambda: load(None),
    "load_missing": lambda: load("/nowhere/at/all"),
    "load_int": lambda: load(5),
    "load_model_str": lambda: load(tempfile.mkdtemp(), model="resnet"),
    "policy_load_none": lambda: Policy.load(None),
    "policy_load_missing": lambda: Policy.load("/nowhere"),
    "policy_load_int": lambda: Policy.load(5),
    "policy_load_empty": lambda: Policy.load(tempfile.mkdtemp()),
    # gymnasium.make
    "env_task_str": lambda: env(task="nope"),
    "env_task_int": lambda: env(task=5),
    "env_task_model": lambda: env(task=MODEL),
    "env_budget_none": lambda: env(budget=5),
    "env_budget_str": lambda: env(budget="macs"),
    "env_budget_high": lambda: env(budget="macs:5"),
    "env_budget_nan": lambda: env(budget="macs:nan"),
    "env_unknown": lambda: env(nonsense=1),
    "env_round": lambda: env(round_to="a"),
    "env_reward": lambda: env(reward="kl"),
    "env_score": lambda: env(score="kl"),
    "env_importance": lambda: env(importance="l1"),
    "env_spec": lambda: env(spec={"a": 1}),
    "env_max": lambda: env(max_log_correction=-1),
    "env_prior": lambda: env(prior="nonsense"),
    "env_prior_int": lambda: env(prior=3),
    "env_levels": lambda: env("Levels", levels=1),
    "env_levels_str": lambda: env("Levels", levels="a"),
    "env_edits": lambda: env("Edit", edits=-1),
    "env_edits_float": lambda: env("Edit", edits=1.5),
    "env_seed": lambda: env(seed="a"),
    "env_render": lambda: env(render_mode="human"),
    "step_shape": lambda: step(np.zeros(7, np.float32)),
    "step_nan": lambda: step(np.full(1, np.nan, np.float32)),
    "step_inf": lambda: step(np.full(1, np.inf, np.float32)),
    "step_neg_inf": lambda: step(np.full(1, -np.inf, np.float32)),
    "step_none": lambda: step(None),
    "step_str": lambda: step("left"),
    "step_oneshot_shape": lambda: step(np.zeros(1, np.float32), "OneShot"),
    "step_oneshot_scalar": lambda: step(0.5, "OneShot"),
    "step_oneshot_inf": lambda: step(np.full(len(STRUCTURE.groups), np.inf, np.float32), "OneShot"),
    "step_levels_float": lambda: step(1.5, "Levels"),
    "step_levels_far": lambda: step(1000, "Levels"),
    "step_levels_neg": lambda: step(-1, "Levels"),
    "step_levels_str": lambda: step("a", "Levels"),
    "step_edit_far": lambda: step(1000000, "Edit"),
    "step_edit_none": lambda: step(None, "Edit"),
    # costs, budgets, problem
    "problem_task_none": lambda: Problem.prepare(None, ProblemSpec()),
    "problem_spec_dict": lambda: Problem.prepare(TASK, {"budget": "macs:0.5"}),
    "problem_budget_int": lambda: Problem.prepare(TASK, ProblemSpec(budget=5)),
    "problem_seed_str": lambda: Problem.prepare(TASK, ProblemSpec(), seed="a"),
    "problem_importance_str": lambda: Problem.prepare(TASK, ProblemSpec(importance="l1")),
    "cost_settings_str": lambda: CostSettings("a"),
    "kind_axis": lambda: OutputKind("x", "classification", axis="a"),
    "kind_weight": lambda: OutputKind("x", "classification", weight=-1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_call_ends_in_a_sentence(call: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
        call()
    assert len(str(caught.value)) > 20
    chain: BaseException = caught.value
    last = traceback.extract_tb(chain.__traceback__)[-1]
    ours = autoprune.__path__[0] in last.filename and (last.line or "").startswith("raise")
    assert ours or isinstance(chain, ValueError), f"{last.filename}:{last.lineno} {chain!r}"
