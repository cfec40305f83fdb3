"""The Stable-Baselines3 model of an agent, not yet trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from autoprune.agent.critic_search import CriticGuidedSampling, Executable, ExecutableSpace, Near
from autoprune.agent.noise import EpisodeNoise
from autoprune.agent.replay import ExecutedActionReplayBuffer, TerminalRewardReplayBuffer
from autoprune.agent.spec import ALGORITHMS, AgentSpec, Replay, Rollout
from autoprune.agent.trained_policy import network_arguments, network_class
from autoprune.agent.vec_env import Env


@dataclass(frozen=True, slots=True, eq=False)
class ReplaySeed:
    """What is known before an agent acts, where each step is an episode that begins at this observation.

    actions [many, …], rewards [many]: what a replay begins with. The last `done` of them can be done, and the agent
    begins near them; the others need not be. executable, near: see CriticGuidance.
    """

    observation: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    executable: Executable
    near: Near
    done: int = 1


def build(agent: AgentSpec, *, env: Env | VecEnv, episode_steps: int, episodes: int, seed: int) -> BaseAlgorithm:
    """The Stable-Baselines3 model of an agent, not yet trained. Seeds the global generators."""
    many = env.num_envs if isinstance(env, VecEnv) else 1
    if agent.initial_std is not None and not isinstance(env.action_space, spaces.Box):
        raise ValueError(f"initial_std needs actions in a box, the environment's are {env.action_space}")
    options: dict[str, Any] = {}
    if agent.network == "transferable":
        options |= {"encoder": agent.encoder, "max_log_correction": agent.max_log_correction}
    elif agent.network != "whole":
        options |= {"shared": True, "group_bias": agent.network == "shared_bias"}
    if agent.critics is not None:
        options["n_critics"] = agent.critics
    if agent.memory is not None:
        options["lstm_hidden_size"] = agent.memory
    if agent.initial_std is not None and not agent.off_policy:
        options["log_std_init"] = math.log(agent.initial_std)
    architecture = {"hidden": agent.hidden, "activation": agent.activation, "options": options}
    arguments = dict(agent.hyperparameters or {})
    noise = None
    match agent.experience:
        case Replay() as replay:
            if many != replay.parallel:
                raise ValueError(f"{agent.algorithm} learns from {replay.parallel} episodes at once, got {many}")
            noise = _noise(agent, replay, env=env, episodes=episodes, seed=seed)
            arguments |= _replay_arguments(replay, episode_steps, gamma=arguments.get("gamma", 0.99))
            arguments |= {} if noise is None else {"action_noise": noise}
        case Rollout() as rollout:
            if rollout.episodes % many:
                raise ValueError(
                    f"{many} environments cannot play rollouts of {rollout.episodes} episodes in whole batches"
                )
            steps = rollout.episodes * episode_steps
            arguments |= {"n_steps": steps // many}
            if agent.algorithm in ("PPO", "RecurrentPPO"):
                arguments.setdefault("batch_size", steps)
    # Networks of a few thousand weights are fastest on the CPU.
    model = ALGORITHMS[agent.algorithm](
        policy=network_class(agent.algorithm, architecture),
        env=env,
        seed=seed,
        device="cpu",
        policy_kwargs=network_arguments(architecture),
        **arguments,
    )
    _set_up_actor(agent, model, noise)
    return model


def _replay_arguments(replay: Replay, episode_steps: int, *, gamma: float) -> dict[str, Any]:
    options: dict[str, Any] = {"keep_proposed": replay.keep_proposed, "n_steps": replay.n_steps, "gamma": gamma}
    if replay.copy_terminal_reward:
        options["baseline_rate"] = replay.baseline_rate
    if replay.standardised:
        if episode_steps > 1 or replay.copy_terminal_reward:
            raise ValueError("standardised rewards are those of one-step episodes: use agent.mode=one_shot")
        options["standardised"] = True
    if replay.shifted:
        options["shifted"] = True
    each = replay.updates_per_episode
    updates = -1 if each is None else max(1, round(each * replay.parallel))
    return {
        "buffer_size": replay.episodes * episode_steps * (2 if replay.keep_proposed else 1),
        "learning_starts": replay.warm_up_episodes * episode_steps,
        "train_freq": (1, "episode") if replay.parallel == 1 else (episode_steps, "step"),
        "gradient_steps": updates,
        "replay_buffer_class": TerminalRewardReplayBuffer
        if replay.copy_terminal_reward
        else ExecutedActionReplayBuffer,
        "replay_buffer_kwargs": options,
    }


def _noise(agent: AgentSpec, replay: Replay, *, env: Env | VecEnv, episodes: int, seed: int) -> EpisodeNoise | None:
    if agent.noise is None:
        return None
    shape = env.action_space.shape
    if not isinstance(env.action_space, spaces.Box) or shape is None:
        raise ValueError(f"noise needs actions in a box, the environment's are {env.action_space}")
    rng = np.random.default_rng(seed)
    return agent.noise.build(shape=shape, rng=rng, warm_up_episodes=replay.warm_up_episodes, episodes=episodes)


def _set_up_actor(agent: AgentSpec, model: BaseAlgorithm, noise: EpisodeNoise | None) -> None:
    """What Stable-Baselines3 has no argument for: the actor's own learning rate, its first spread, and AMC's noise."""
    actor: Any = getattr(model, "actor", None)
    if agent.actor_learning_rate is not None:
        rate = agent.actor_learning_rate

        def set_rate(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            for group in optimizer.param_groups:
                group["lr"] = rate

        # Stable-Baselines3 writes one rate into actor and critic before each training; this is what steps see.
        actor.optimizer.register_step_pre_hook(set_rate)
    if agent.initial_std is not None and agent.off_policy:
        torch.nn.init.zeros_(actor.log_std.weight)
        torch.nn.init.constant_(actor.log_std.bias, math.log(agent.initial_std))
    if noise is not None:
        noise.follow(actor)


def seed_replay(agent: AgentSpec, model: BaseAlgorithm, known: Sequence[ReplaySeed], *, seed: int) -> None:
    """The replay begins with what is known of each observation, and proposals are judged by the critics."""
    if not known:
        if agent.critic_guidance is not None:
            raise ValueError("proposals are judged as they would be executed: use agent.mode=one_shot")
        return
    if not isinstance(model, OffPolicyAlgorithm) or not isinstance(model.replay_buffer, ExecutedActionReplayBuffer):
        raise ValueError(f"{agent.algorithm} has no replay that what is known could be told to")
    replay = model.replay_buffer
    executed = {each.observation.tobytes(): _told(replay, each, envs=model.n_envs) for each in known}
    replay.told = replay.pos - 1
    model.train(gradient_steps=max(1, model.gradient_steps), batch_size=model.batch_size)
    if agent.critic_guidance is not None:
        places = {each.observation.tobytes(): ExecutableSpace(each.executable, each.near) for each in known}
        critic_guided = CriticGuidedSampling(model, agent.critic_guidance, places=places, executed=executed, seed=seed)
        model._sample_action = critic_guided  # type: ignore[method-assign]


def _told(replay: ExecutedActionReplayBuffer, known: ReplaySeed, *, envs: int) -> range:
    """Adds what is known, in whole rows, so that some is told twice. The rows whose actions can be done."""
    split = len(known.rewards) - known.done
    observations = np.repeat(known.observation[None], envs, axis=0)
    parts = [np.arange(split), np.arange(split, len(known.rewards))]
    for part in parts:
        first = replay.pos
        for row in np.resize(part, (-(-len(part) // envs), envs)):
            told = [{"executed_action": action} for action in known.actions[row]]
            replay.add(observations, observations, known.actions[row], known.rewards[row], np.ones(envs, bool), told)
    return range(first, replay.pos)
