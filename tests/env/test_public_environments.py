"""Every environment that gymnasium.make knows of autoprune, as somebody else's agent meets it."""

import copy
import functools
import math
import pickle
import re
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check
from stable_baselines3.common.env_util import make_vec_env

import autoprune  # noqa: F401  registers the environments
from autoprune import Problem, ProblemSpec
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.testing import check_environment, check_training_environment, small_task

PLANS = ("Layerwise-v0", "OneShot-v0", "Edit-v0", "Levels-v0")
TRAINING = ("Schedule-v0", "Rounds-v0")
TASK = small_task()
SHORT = {"task": TASK, "density": 0.3, "steps": 4, "decisions": 2}


@functools.cache
def small_problem() -> Problem:
    return Problem.prepare(TASK, ProblemSpec(budget="macs:0.5", evaluation=EvaluationSettings(store=None, race=None)))


def made(name: str, **changes: Any) -> gymnasium.Env[Any, Any]:
    if name in PLANS and changes.keys() & {"task", "budget", "proxy_samples"}:
        changes = {"task": TASK, **changes}
    elif name in PLANS:
        changes = {"task": small_problem(), **changes}
    elif name in TRAINING:
        changes = {**SHORT, **changes}
    else:
        changes = {"table": "digits_mlp", **changes}
    return gymnasium.make(f"autoprune/{name}", **changes)


def registered() -> list[str]:
    return [name.removeprefix("autoprune/") for name in gymnasium.registry if name.startswith("autoprune/")]


def test_these_are_all() -> None:
    assert set(registered()) == {*PLANS, *TRAINING, "ScheduleTab-v0"}


@pytest.mark.parametrize("name", registered())
def test_checkers_take_it_seeds_repeat_it_and_it_is_rendered_or_not(name: str) -> None:
    env = made(name, render_mode="ansi")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Box|render|observation).*")  # gymnasium's, of spaces and modes
        gymnasium_check(env.unwrapped)
    sb3_check(env, warn=False)
    assert len(env.unwrapped.feature_names) == env.observation_space.shape[0]  # type: ignore[attr-defined, index]
    episodes = []
    for _ in range(2):
        env.action_space.seed(3)
        steps = [env.reset(seed=3)[0].tolist()]
        over = False
        while not over:
            observation, reward, over, _, _ = env.step(env.action_space.sample())
            steps.append([*observation.tolist(), float(reward)])
        text = env.render()
        episodes.append((steps, text))
    assert episodes[0] == episodes[1]
    assert isinstance(text, str)
    assert text
    pictured = made(name, render_mode="rgb_array")
    pictured.reset(seed=0)
    before: Any = pictured.render()
    pictured.step(pictured.action_space.sample())
    after: Any = pictured.render()
    assert (before.dtype, before.shape[2]) == (np.uint8, 3)
    assert before.shape == after.shape
    assert (before != after).any()
    silent = made(name)
    silent.reset(seed=0)
    assert silent.unwrapped.render() is None


@pytest.mark.parametrize("name", [*PLANS, *TRAINING])
def test_environments_conform_and_so_do_copies(name: str) -> None:
    env = made(name)
    (check_environment if name in PLANS else check_training_environment)(env)
    for again in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        env.action_space.seed(1)
        observation, _ = env.reset(seed=0)
        assert np.array_equal(again.reset(seed=0)[0], observation)
        action = env.action_space.sample()
        assert again.step(action)[1] == env.step(action)[1]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_begin_again_as_gymnasium_says(name: str, mode: AutoresetMode) -> None:
    envs = gymnasium.make_vec(
        f"autoprune/{name}", num_envs=2, task=small_problem(), autoreset_mode=mode, render_mode="ansi"
    )
    first, _ = envs.reset(seed=0)
    envs.action_space.seed(0)
    ended = np.zeros(2, bool)
    while not ended.any():
        observations, _, ended, _, infos = envs.step(envs.action_space.sample())
    assert len(envs.render() or ()) == 2
    if name == "Edit-v0":  # whose next episode begins at the best plan so far
        assert observations.shape == first.shape
        return
    if mode is AutoresetMode.SAME_STEP:
        assert np.array_equal(observations, first)
        assert len(infos["final_obs"]) == 2
        assert infos["final_info"]["plan"].tolist() == infos["plan"].tolist()
    elif mode is AutoresetMode.NEXT_STEP:
        again, rewards, ended, _, infos = envs.step(envs.action_space.sample())
        assert np.array_equal(again, first)
        assert not rewards.any()
        assert not ended.any()
        assert infos == {}
    else:
        with pytest.raises(gymnasium.error.ResetNeeded):
            envs.step(envs.action_space.sample())
        assert np.array_equal(envs.reset()[0], first)


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_trainings_begin_again_as_gymnasium_says(name: str, mode: AutoresetMode) -> None:
    """Gymnasium's own vectors of single environments hold them to its rules."""
    vector: dict[str, Any] = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}}
    envs = gymnasium.make_vec(f"autoprune/{name}", num_envs=2, render_mode="ansi", **vector, **SHORT)
    first, _ = envs.reset(seed=0)
    actions = np.array([[-0.5] * envs.single_action_space.shape[0], [0.5] * envs.single_action_space.shape[0]])  # type: ignore[index]
    for _ in range(SHORT["decisions"]):
        observations, _, ended, truncated, infos = envs.step(actions)
    assert ended.all()
    assert not truncated.any()
    assert all(str(text).startswith("decision") for text in envs.render() or ("",))
    if mode is AutoresetMode.SAME_STEP:
        assert np.array_equal(observations, first)
        assert [round(pruned.density, 3) for pruned in infos["final_info"]["pruned"]] == [0.3, 0.3]
        return
    assert not np.array_equal(observations, first)
    assert [round(pruned.density, 3) for pruned in infos["pruned"]] == [0.3, 0.3]
    if mode is AutoresetMode.NEXT_STEP:
        again, rewards, ended, _, _ = envs.step(actions)
        assert np.array_equal(again, first)
        assert not rewards.any()
        assert not ended.any()
    else:
        assert np.array_equal(envs.reset(options={"reset_mask": np.ones(2, bool)})[0], first)


def test_processes_step_copies_of_the_single_one() -> None:
    settings: dict[str, Any] = {"task": small_problem(), "prior": "uniform"}
    apart = gymnasium.make_vec("autoprune/OneShot-v0", num_envs=2, vectorization_mode="async", **settings)
    together = gymnasium.make_vec("autoprune/OneShot-v0", num_envs=2, **settings)
    try:
        assert np.array_equal(apart.reset(seed=0)[0], together.reset(seed=0)[0])
        actions = np.array([[0.0, 0.3, -0.2, 0.1], [0.5, -0.5, 0.5, -0.5]], np.float32)
        one, other = apart.step(actions), together.step(actions)
        assert one[1] == pytest.approx(other[1])
        assert one[4]["plan"].tolist() == other[4]["plan"].tolist()
    finally:
        apart.close()


def test_stable_baselines_makes_several_of_it() -> None:
    """Its make_vec_env asks for pictures where nothing is said."""
    made_by_it = make_vec_env("autoprune/OneShot-v0", n_envs=2, env_kwargs={"task": small_problem()})
    model = PPO("MlpPolicy", made_by_it, n_steps=2, batch_size=4, n_epochs=1, seed=0).learn(4)
    assert model.num_timesteps == 4
    assert made_by_it.render().ndim == 3


def test_an_environment_takes_what_agents_get() -> None:
    sensitive = made("Layerwise-v0", prior="sensitivity", reward_shaping="shaped", max_log_correction=0.5)
    _, infos, rewards = sensitive.reset(seed=0), [], []
    for _ in sensitive.unwrapped.structure.groups:  # type: ignore[attr-defined]
        *_, reward, _, _, info = sensitive.step(np.zeros(1, np.float32))
        infos.append(info)
        rewards.append(float(reward))
    assert min(rewards[:-1]) < 0, "shaping pays before the end"
    assert sum(rewards) == pytest.approx(infos[-1]["outcome"].reward)
    alone = made("OneShot-v0", prior="closed_form", observation="budget")
    assert alone.reset(seed=0)[0].tolist() == [alone.unwrapped.projector.budget.relative]  # type: ignore[attr-defined]


def test_evaluations_are_charged_and_end() -> None:
    env = made("OneShot-v0", prior="closed_form", evaluations=7)
    objective = env.unwrapped.problem.objective  # type: ignore[attr-defined]
    left = objective.left
    assert 3 <= left < 7, "the prior is charged"
    for _ in range(left):
        env.reset(seed=0)
        env.step(env.action_space.sample())
    env.reset(seed=0)
    with pytest.raises(EvaluationsSpent, match="all 7 evaluations are spent"):
        env.step(env.action_space.sample())
    assert objective.spent == 7
    assert objective.best.feasible
    network = env.unwrapped.problem.pruned(objective.best.plan)  # type: ignore[attr-defined]
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in TASK.model.parameters())


def test_a_problem_of_ones_own_is_an_environment() -> None:
    spec = ProblemSpec(budget="params:0.4", evaluation=EvaluationSettings(proxy_samples=10, store=None))
    problem = Problem.prepare(TASK, spec).limited(2)
    envs = gymnasium.make_vec("autoprune/Layerwise-v0", num_envs=2, task=problem)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in problem.structure.groups:
        *_, infos = envs.step(envs.action_space.sample())
    assert {outcome.metrics.samples for outcome in infos["outcome"]} == {10}
    assert problem.objective.left == 0
    with pytest.raises(ValueError, match=r"budget='macs:0.5'"):
        made("OneShot-v0", task=problem, budget="macs:0.5")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("OneShot-v0", {"taks": TASK}, r"no option 'taks'; did you mean task\?; it has budget, "),
    ("OneShot-v0", {"seed_replay": True}, "no option 'seed_replay'"),
    ("OneShot-v0", {"task": 3}, "task must be a text or a Task or a Problem, got 3"),
    ("OneShot-v0", {"task": TASK.model}, "task must be .* got a Sequential"),
    ("Edit-v0", {"budget": 0.5}, "budget must be a text or a list or None, got 0.5"),
    ("Layerwise-v0", {"budget": "0.5"}, "budget '0.5' must be written cost:amount"),
    ("Layerwise-v0", {"proxy_samples": 0}, "^proxy_samples must be at least 1 or None, got 0"),
    ("Layerwise-v0", {"prior": "best"}, "^prior must be none, uniform, sensitivity or closed_form, got 'best'"),
    ("Levels-v0", {"levels": 1}, "at least two levels are needed"),
    ("Levels-v0", {"prior": "uniform"}, r"^levels=10 are densities .* mode=layerwise and prior=none"),
    ("OneShot-v0", {"render_mode": "human"}, "render_mode must be None, 'ansi' or 'rgb_array', got 'human'"),
    ("OneShot-v0", {"evaluations": 2, "prior": "closed_form"}, "needs 4 evaluations.*got 2.*evaluations=N"),
    ("OneShot-v0", {"proxy_samples": 10**9}, r"^proxy_samples must be in \[1, 39\] .* got 1000000000"),
    ("OneShot-v0", {"max_log_correction": math.inf, "prior": "uniform"}, r"^max_log_correction must be in \(0, inf\)"),
    ("Edit-v0", {"edits": 0}, "^edits must be at least 1 or None, got 0"),
    ("Schedule-v0", {"densty": 0.1}, r"no option 'densty'; did you mean density\?"),
    ("Schedule-v0", {"task": 3}, "task must be a text or a Task, got 3"),
    ("Schedule-v0", {"density": 2}, r"^density must be in \(0, 1\] or None, got 2"),
    ("Rounds-v0", {"steps": "many"}, "^steps must be a number, got 'many'"),
    ("Rounds-v0", {"rewind_step": -1}, "^rewind_step must be at least 0 or None, got -1"),
    ("ScheduleTab-v0", {"shaping": -1.0}, r"^shaping must be in \[0, inf\), got -1"),
    ("ScheduleTab-v0", {"table": "mnist"}, "^table must be digits_mlp or digits_cnn or a ScheduleTable, got 'mnist'"),
    ("ScheduleTab-v0", {"measure": "loss"}, "^measure must be search_loss, .* got 'loss'"),
]


@pytest.mark.parametrize(("name", "changes", "says"), WRONG)
def test_a_wrong_argument_is_one_sentence(name: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        made(name, **changes)
    assert "\n" not in str(raised.value)
    assert "agent.env" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("name", registered())
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the environment needs (task|table), which must be .*$") as raised:
        gymnasium.make(f"autoprune/{name}")
    assert re.search("a text or a Task|a ScheduleTable", str(raised.value))


@pytest.mark.parametrize("name", registered())
def test_reset_takes_no_option_in_silence(name: str) -> None:
    env = made(name)
    env.reset(seed=0, options={})
    with pytest.raises(ValueError, match=r"reset\(\).*'budget'"):
        env.reset(seed=0, options={"budget": "macs:0.3"})


@pytest.mark.parametrize("changes", [{"num_envs": 0}, {"num_envs": 2, "autoreset_mode": "same"}, {"num_envs": 1.5}])
def test_wrong_vectors_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(num_envs must be|autoreset_mode must be an AutoresetMode, got 'same')"):
        gymnasium.make_vec("autoprune/OneShot-v0", task=TASK, **changes)
