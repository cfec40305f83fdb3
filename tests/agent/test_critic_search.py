"""Actions that critics choose: among what can be executed, new, near the best so far, and what they think most of."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from autoprune.agent.critic_search import CriticGuidance, CriticGuided
from autoprune.agent.learn import learn
from autoprune.agent.replay import ExecutedActionReplayBuffer
from autoprune.env.replay_seed import ReplaySeed
from tests.agent.critic_guided import BEST, OBSERVED, Actions, beside, coarse, critic_guided, environments, replay_seed
from tests.sampling import covering

KEY = OBSERVED.tobytes()


def executed(env: Any) -> list[tuple[float, ...]]:
    """In the order in which it happened."""
    rows = np.array([each.executed for each in env.envs]).swapaxes(0, 1)
    return [tuple(row) for row in rows.reshape(-1, rows.shape[-1]).tolist()]


@pytest.mark.parametrize("algorithm", covering(["CrossQ", "SAC", "TD3", "TQC"], ["TD3"]))
def test_nothing_is_executed_twice_and_the_best_is_near(algorithm: str) -> None:
    env = environments(3)
    agent = critic_guided(algorithm=algorithm, standardised=True)
    on = {"on_metrics": lambda metrics, step: None, "seeds": [replay_seed()]}
    learn(agent, env=env, episode_steps=1, episodes=60, seed=0, **on)
    did = executed(env)
    assert len(did) == 60
    assert len({*did, (0.0,) * 4}) == 61, "nor is what was told to have been executed"
    assert max(reward for each in env.envs for reward in each.returns) > -0.08 > -np.mean(BEST**2) / 2


def test_the_same_seed_chooses_the_same() -> None:
    histories = []
    for seed in (1, 1, 2):
        env = environments(2)
        on = {"on_metrics": lambda metrics, step: None, "seeds": [replay_seed()]}
        learn(critic_guided(parallel=2), env=env, episode_steps=1, episodes=12, seed=seed, **on)
        histories.append(executed(env))
    assert histories[0] == histories[1] != histories[2]


class OwnSampling(OffPolicyAlgorithm):
    """An agent that samples nothing but 0.9."""

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> Any:
        actions = np.full((n_envs, *self.action_space.shape), 0.9, np.float32)  # type: ignore[misc]
        return actions, actions


class ByHand(CriticGuided, OwnSampling):
    """One whose critics and actor are set by hand, and whose replay holds what it executed."""

    def __init__(self, critics: Sequence[Callable[[Actions], Any]], samples: Actions | None, entries: int) -> None:
        def critic(observations: Any, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(torch.as_tensor(np.asarray(each(actions.numpy())))[:, None] for each in critics)

        self.policy: Any = SimpleNamespace(
            critic=critic, set_training_mode=lambda mode: None, obs_to_tensor=lambda o: (torch.as_tensor(o), False)
        )
        self.observation_space = Box(-9, 9, OBSERVED.shape, np.float32)
        self.action_space = Box(-1, 1, (entries,), np.float32)
        self.replay_buffer = ExecutedActionReplayBuffer(200, self.observation_space, self.action_space, "cpu")
        self.num_timesteps, self.n_envs, self._samples = 0, 1, samples

    def predict(self, observation: Any, *_: Any, **__: Any) -> Any:
        return np.resize(self._samples, (len(observation), self.action_space.shape[0])), None  # type: ignore[misc,arg-type]

    def choose(self, count: int = 1, *, warm_up: int = 0) -> Actions:
        self._last_obs = np.repeat(OBSERVED[None], count, axis=0)
        return np.asarray(self._sample_action(warm_up, n_envs=count)[0])


def chooser(
    guidance: CriticGuidance,
    *,
    critics: Sequence[Callable[[Actions], Any]],
    did: Actions,
    rewards: Any,
    done: int | None = None,
    samples: Actions | None = None,
    executable: Callable[[Actions], Actions] = coarse,
) -> ByHand:
    """It did so before it acts; the last `done` of that could be executed."""
    model = ByHand(critics, samples, did.shape[1])
    done = len(did) if done is None else done
    seed = ReplaySeed(OBSERVED, did, np.asarray(rewards, np.float64), executable, beside, done)
    model.guide(guidance, [seed], seed=0)
    return model


def only(**changes: Any) -> CriticGuidance:
    """Changes of the best action alone, without crosses."""
    settings: dict[str, Any] = {
        "candidates_per_evaluation": 64,
        "actor_fraction": 0.0,
        "elite": 1,
        "max_changed_groups": 1,
        "sigmas": (0.3,),
    }
    return CriticGuidance(
        **{**settings, "neighbour_fraction": 0.0, "ucb_coefficient": 0.0, "crossover_probability": 0.0, **changes}
    )


def test_what_the_critics_prefer_is_executed() -> None:
    wanted = np.array([[0.55, -0.35, 0.0]], np.float32)
    prefers = [lambda actions: -np.abs(actions - wanted).sum(axis=1)] * 2
    choose = chooser(
        only(actor_fraction=0.5), critics=prefers, did=np.zeros((1, 3), np.float32), rewards=[0.0], samples=wanted
    )
    assert np.array_equal(choose.choose(), wanted)
    assert not np.array_equal(choose.choose(), wanted), "but only once"


@pytest.mark.parametrize(("optimism", "wanted"), [(0.0, 0.5), (3.0, -0.5)])
def test_optimists_choose_what_critics_disagree_on(optimism: float, wanted: float) -> None:
    """Both critics like 0.5 a little; of −0.5 one thinks much better than the other."""

    def says(of_other: float) -> Callable[[Actions], Any]:
        return lambda actions: np.where(np.isclose(actions[:, 0], 0.5), 0.6, np.where(actions[:, 0] < 0, of_other, 0.0))

    choose = chooser(
        only(actor_fraction=1.0, ucb_coefficient=optimism),
        critics=[says(1.0), says(0.0)],
        did=np.zeros((1, 1), np.float32),
        rewards=[0.0],
        samples=np.array([[0.5], [-0.5]], np.float32),
    )
    assert choose.choose().tolist() == [[wanted]]


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_proposals_change_a_few_entries_of_the_best(entries: int, changes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    did, rewards = rng.uniform(-1, 1, (7, entries)).astype(np.float32), rng.normal(size=7)
    choose = chooser(only(max_changed_groups=changes, elite=3), critics=[], did=did, rewards=rewards)
    elite = choose._elite(KEY)
    assert elite == pytest.approx(did[np.argsort(-rewards)[:3]], abs=1e-6)
    proposed = choose._stepped(elite, 128)
    assert proposed.shape == (128, entries)
    assert np.abs(proposed).max() <= 1
    changed = (proposed[:, None] != elite[None]).sum(axis=2).min(axis=1)
    assert changed.max() <= min(changes, entries)


def test_crosses_take_every_entry_from_one_of_the_best() -> None:
    did = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]], np.float32)
    choose = chooser(only(crossover_probability=1.0, elite=2, sigmas=(1e-9,)), critics=[], did=did, rewards=[0, 0])
    proposed = np.round(choose._stepped(choose._elite(KEY), 64), 4)
    assert np.allclose(np.abs(proposed), [0.1, 0.2, 0.3])
    assert {tuple(row) for row in np.sign(proposed).tolist()} == {
        (a, b, c) for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, 1.0)
    }


@pytest.mark.parametrize(("from_actor", "near"), [(0.0, 1.0), (0.25, 0.5), (1.0, 0.0)])
def test_proposals_are_of_three_kinds_and_all_can_be_executed(from_actor: float, near: float) -> None:
    did = np.array([[0.5, 0.5], [-0.5, -0.5]], np.float32)
    choose = chooser(
        only(actor_fraction=from_actor, neighbour_fraction=near, elite=2, max_changed_groups=2, sigmas=(0.5,)),
        critics=[],
        did=did,
        rewards=[0, 0],
        samples=np.array([[0.91, -0.91]], np.float32),
    )
    proposed = choose._candidates(KEY, OBSERVED, 2)
    assert proposed.shape == (128, 2)
    assert np.array_equal(proposed, coarse(proposed))
    sampled, moved = round(128 * from_actor), round(128 * near)
    assert proposed[:sampled].tolist() == coarse(np.tile([[0.91, -0.91]], (sampled, 1))).tolist()
    steps = np.abs(proposed[sampled : sampled + moved, None] - did).sum(axis=2).min(axis=1)
    assert steps == pytest.approx(np.full(moved, 0.05), abs=1e-6)


def test_a_part_is_not_the_critics_choice() -> None:
    """The critics like the first entry alone; what they are not asked about changes others too."""
    prefers = [lambda actions: actions[:, 0]] * 2
    did = np.zeros((1, 6), np.float32)
    for unasked, least in ((0.0, 0), (0.5, 2), (1.0, 4)):
        choose = chooser(only(exploration_fraction=unasked), critics=prefers, did=did, rewards=[0.0])
        chosen = choose.choose(8)
        assert len({row.tobytes() for row in chosen}) == 8
        assert np.count_nonzero(chosen[:, 1:].any(axis=1)) >= least
        if not unasked:
            assert (chosen[:, 0] > 0).all()


def test_the_best_of_one_place_is_not_proposed_at_another() -> None:
    """Two observations that differ in their best action; all that is proposed stays near it, also in one batch."""
    here, there = OBSERVED, OBSERVED + 1
    model = ByHand([lambda actions: actions.sum(axis=1)] * 2, None, 3)
    seeds = [
        ReplaySeed(seen, np.full((1, 3), sign * 0.6, np.float32), np.zeros(1), coarse, beside)
        for seen, sign in ((here, 1), (there, -1))
    ]
    model.guide(only(), seeds, seed=0)
    for rows in ([here] * 4, [there] * 4, [here, there, there, here]):
        model._last_obs = np.array(rows)
        chosen, stored = model._sample_action(0, n_envs=4)
        assert chosen is stored
        sign = np.array([[1.0 if seen is here else -1.0] for seen in rows])
        assert (np.sort(sign * chosen, axis=1)[:, 1:] > 0.5).all(), "one entry is changed at most"


def test_what_could_not_be_executed_is_no_elite() -> None:
    did = np.array([[0.9, 0.9], [0.5, 0.5], [0.0, 0.0], [0.2, 0.2]], np.float32)
    choose = chooser(only(elite=5), critics=[], did=did, rewards=[9.0, 8.0, -1.0, 1.0], done=2)
    assert choose._elite(KEY) == pytest.approx(did[[3, 2]], abs=1e-6)


def test_where_all_that_is_near_is_known_the_agent_samples_itself() -> None:
    stuck: Any = {"critics": [lambda actions: actions[:, 0]], "did": np.zeros((1, 2), np.float32), "rewards": [0.0]}
    own = np.full((1, 2), 0.9, np.float32).tolist()
    assert chooser(only(), **stuck, executable=np.zeros_like).choose().tolist() == own
    assert chooser(only(), **stuck).choose(warm_up=5).tolist() == own, "as it does in its warm-up"
    assert chooser(only(), **stuck).choose().tolist() != own


def test_random_ranking_does_not_ask_the_critics() -> None:
    """The control that shows what the critics contribute."""

    def never(actions: Actions) -> Any:
        raise AssertionError

    stuck: Any = {"critics": [never], "did": np.zeros((1, 2), np.float32), "rewards": [0.0]}
    chosen = chooser(only(ranking="random"), **stuck).choose(8)
    assert len({row.tobytes() for row in chosen}) == 8
    with pytest.raises(AssertionError):
        chooser(only(), **stuck).choose()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neighbour_fraction": 0.6, "actor_fraction": 0.5}, "parts of one whole, got 0.5 and 0.6"),
        ({"sigmas": ()}, r"at least one; got none"),
        ({"sigmas": (0.1, 0.0)}, r"above 0.*\(0.1, 0.0\)"),
    ],
)
def test_senseless_proposals_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        only(**changes)
