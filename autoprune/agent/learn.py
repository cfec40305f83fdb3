"""Learning: an agent and an environment → a policy. What was tried on the way, the environment has recorded."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from autoprune.agent.agent_spec import AgentSpec, Replay, Rollout
from autoprune.agent.metrics import OnMetrics, logger
from autoprune.agent.noise import EpisodeNoise
from autoprune.agent.sb3_model import build, seed_replay
from autoprune.agent.trained_policy import TrainedPolicy, policy_of
from autoprune.agent.vec_env import Env, StepLimit, VecEnvs, vectorized
from autoprune.env.replay_seed import ReplaySeed
from autoprune.evaluation.metered import EvaluationsSpent

OnUpdate = Callable[[TrainedPolicy], None]


@dataclass(frozen=True, slots=True)
class Learned:
    """A policy, and how long it learned."""

    policy: TrainedPolicy
    """What was learned."""
    episodes: int
    """Whole ones that were played."""
    steps: int
    """That the environment answered."""

    def act(self, observation: NDArray[np.float32]) -> NDArray[Any]:
        """The action without exploration."""
        return self.policy.act(observation)


def learn(  # noqa: PLR0913 - keyword-only settings and callbacks
    agent: AgentSpec,
    *,
    env: Env | VecEnvs,
    episode_steps: int,
    episodes: int,
    seed: int,
    on_metrics: OnMetrics,
    stop: Callable[[], bool] = lambda: False,
    on_update: OnUpdate = lambda policy: None,
    seeds: Sequence[ReplaySeed] = (),
    begin: Callable[[TrainedPolicy], None] = lambda policy: None,
) -> Learned:
    """Returns the policy that an agent learns in an environment.

    It ends earlier than said, with all that was learned, where `stop` says so or the environment raises
    EvaluationsSpent. The same seed gives the same actions, on one thread; the global generators that Stable-Baselines3
    draws from are put back as they were. An on-policy agent learns from the actions it sampled, as its gradient
    demands, and takes the budget's projection for a part of the environment; every other agent learns from the executed
    ones.

    Args:
        agent: What learns.
        env: For one episode or many. A vector environment's last batch is begun where fewer episodes are left: a
            metered objective evaluates those, and then raises EvaluationsSpent.
        episode_steps: Steps of each episode.
        episodes: How long it learns; schedules (noise, DQN's exploration) are laid over it.
        seed: Of the agent.
        on_metrics: Takes the agent's losses.
        stop: Asked before every step.
        on_update: Takes the policy after every update but the last, between two episodes, so that the plan which it
            thinks best can be evaluated. It must not step `env`, and may raise EvaluationsSpent.
        seeds: What is known before it acts, for each observation that episodes begin at.
        begin: Changes the policy before it learns, such as by another one's weights.

    Raises:
        ValueError: Nothing would be learned, or options do not fit the environment.
    """
    check_length(agent, episodes, episode_steps, seeded=sum(len(each.rewards) for each in seeds))
    venv = vectorized(env)
    batches = math.ceil(episodes / venv.num_envs)
    until = StepLimit(venv, stop=stop, most_steps=batches * venv.num_envs * episode_steps)
    with _own_randomness(), _own_threads():
        model = build(agent, env=until, episode_steps=episode_steps, episodes=episodes, seed=seed)
        model.set_logger(logger(on_metrics))
        policy = policy_of(agent.algorithm, model)
        begin(policy)
        seed_replay(agent, model, seeds, seed=seed)
        with suppress(EvaluationsSpent):
            # A log line per episode or rollout: there are only a few hundred.
            model.learn(until.most_steps, callback=_Updates(policy, on_update), log_interval=1)
        model.logger.dump(model.num_timesteps)  # what the last update logged
    return Learned(policy, episodes=until.episodes, steps=until.steps)


def check_length(agent: AgentSpec, episodes: int, episode_steps: int, *, seeded: int = 0) -> None:
    """Raises ValueError where nothing would be learned, or a replay of `seeded` rows and all episodes is too short.

    Args:
        agent: Which algorithm learns, and with which settings.
        episodes: How many episodes are learned from.
        episode_steps: Steps of one episode.
        seeded: Entries that the buffer began with.
    """
    if episodes < 1 or episode_steps < 1:
        raise ValueError(f"learning needs at least one episode of one step, got {episodes} of {episode_steps}")
    match agent.experience:
        case Replay(warm_up_episodes=idle) if idle >= episodes:
            raise ValueError(
                f"all {episodes} episodes would be the random warm-up of {idle}, and {agent.algorithm} would learn "
                "nothing: give the search more evaluations, or lower agent.agent.experience.warm_up_episodes"
            )
        case Replay(episodes=held, parallel=batch) if (
            agent.critic_guidance is not None and held < seeded + episodes + 3 * batch
        ):
            raise ValueError(
                f"candidates are changes of the best of all that was executed, and a replay of {held} episodes would "
                f"forget some: set agent.agent.experience.episodes to at least {seeded + episodes + 3 * batch}"
            )
        case Rollout(episodes=needed) if needed > episodes:
            raise ValueError(
                f"{agent.algorithm} learns from {needed} episodes at a time and would learn nothing from {episodes}: "
                "give the search more evaluations, or lower agent.agent.experience.episodes"
            )


class _Updates(BaseCallback):
    """Calls back with the policy after each update, logs how wide the noise is, and updates on one thread.

    Networks this small gain nothing from a second thread, and lose much where other work wants the core; what the
    environment evaluates keeps all threads.
    """

    def __init__(self, policy: TrainedPolicy, on_update: OnUpdate) -> None:
        super().__init__()
        self._policy, self._on_update, self._updates = policy, on_update, 0
        self._threads = torch.get_num_threads()

    def _on_rollout_end(self) -> None:
        torch.set_num_threads(1)  # Stable-Baselines3 updates between the end of one rollout and the start of the next

    def _on_rollout_start(self) -> None:
        torch.set_num_threads(self._threads)
        if self.model._n_updates > self._updates:  # the only count that every algorithm keeps
            self._updates = self.model._n_updates
            self._on_update(self._policy)

    def _on_step(self) -> bool:
        noise = self.model.action_noise
        if isinstance(noise, EpisodeNoise):
            self.logger.record("rollout/noise_sigma", noise.sigma)
        return True


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Stable-Baselines3 seeds and draws from the global generators; outside they are as if it had not."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def _own_threads() -> Iterator[None]:
    """Whatever happens inside, torch has as many threads afterwards as before."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
