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

from autoprune.agent.metrics import OnMetrics, logger
from autoprune.agent.noise import EpisodeNoise
from autoprune.agent.sb3_model import ReplaySeed, build, seed_replay
from autoprune.agent.spec import AgentSpec, Replay, Rollout
from autoprune.agent.trained_policy import TrainedPolicy, policy_of
from autoprune.agent.vec_env import Env, StepLimit, VecEnvs, vectorized
from autoprune.evaluation.metered import EvaluationsSpent

OnUpdate = Callable[[TrainedPolicy], None]


@dataclass(frozen=True, slots=True)
class Learned:
    """A policy, and how long it learned: whole episodes and steps that the environment answered."""

    policy: TrainedPolicy
    episodes: int
    steps: int

    def act(self, observation: NDArray[np.float32]) -> NDArray[Any]:
        """The action without exploration."""
        return self.policy.act(observation)


def learn(
    agent: AgentSpec,
    *,
    env: Env | VecEnvs,
    episode_steps: int,
    episodes: int,
    seed: int,
    on_metrics: OnMetrics,
    stop: Callable[[], bool] = lambda: False,
    on_update: OnUpdate = lambda policy: None,
    known: Sequence[ReplaySeed] = (),
    begin: Callable[[TrainedPolicy], None] = lambda policy: None,
) -> Learned:
    """Learns in `env` for `episodes` episodes, each of `episode_steps` steps, and returns the policy.

    Schedules (noise, DQN's exploration) are laid over `episodes`. It ends earlier, with all it learned so far, when
    stop() is true before a step, or when the environment raises EvaluationsSpent. A vector environment's last batch is
    begun where fewer episodes are left: a metered objective evaluates those, and then raises EvaluationsSpent.

    known: what is known before, for each observation that episodes begin at. begin: what is done to the policy before
    it learns, such as filling in the weights of another one.

    on_metrics gets the agent's losses. on_update gets the policy after every update but the last, always between two
    episodes, so that the plan which it thinks best can be evaluated; it must not step `env`, and it may raise
    EvaluationsSpent as well.

    The same seed gives the same actions, on one thread; the global generators that Stable-Baselines3 draws from are put
    back as they were. An on-policy agent learns from the actions it sampled, as its gradient demands, and takes the
    budget's projection for a part of the environment; every other agent learns from the executed ones.
    """
    check_length(agent, episodes, episode_steps, told=sum(len(each.rewards) for each in known))
    venv = vectorized(env)
    batches = math.ceil(episodes / venv.num_envs)
    until = StepLimit(venv, stop=stop, most_steps=batches * venv.num_envs * episode_steps)
    with _own_randomness(), _own_threads():
        model = build(agent, env=until, episode_steps=episode_steps, episodes=episodes, seed=seed)
        model.set_logger(logger(on_metrics))
        policy = policy_of(agent.algorithm, model)
        begin(policy)
        seed_replay(agent, model, known, seed=seed)
        with suppress(EvaluationsSpent):
            # A log line per episode or rollout: there are only a few hundred.
            model.learn(until.most_steps, callback=_Updates(policy, on_update), log_interval=1)
        model.logger.dump(model.num_timesteps)  # what the last update logged
    return Learned(policy, episodes=until.episodes, steps=until.steps)


def check_length(agent: AgentSpec, episodes: int, episode_steps: int, *, told: int = 0) -> None:
    """told: rows that a replay begins with. Raises ValueError where nothing, or not all, would be learned from."""
    if episodes < 1 or episode_steps < 1:
        raise ValueError(f"learning needs at least one episode of one step, got {episodes} of {episode_steps}")
    match agent.experience:
        case Replay(warm_up_episodes=idle) if idle >= episodes:
            raise ValueError(
                f"all {episodes} episodes would be the random warm-up of {idle}, and {agent.algorithm} would learn "
                "nothing: give the search more evaluations, or lower agent.experience.warm_up_episodes"
            )
        case Replay(episodes=held, parallel=many) if (
            agent.critic_guidance is not None and held < told + episodes + 3 * many
        ):
            raise ValueError(
                f"proposals are changes of the best of all that was executed, and a replay of {held} episodes would "
                f"forget some: set agent.experience.episodes to at least {told + episodes + 3 * many}"
            )
        case Rollout(episodes=needed) if needed > episodes:
            raise ValueError(
                f"{agent.algorithm} learns from {needed} episodes at a time and would learn nothing from {episodes}: "
                "give the search more evaluations, or lower agent.experience.episodes"
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
