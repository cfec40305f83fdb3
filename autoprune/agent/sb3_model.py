"""The Stable-Baselines3 model of an agent, not yet trained."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from autoprune.agent.agent_spec import ALGORITHMS, AgentSpec, Replay, Rollout
from autoprune.agent.critic_search import CRITIC_GUIDED, CriticGuided
from autoprune.agent.noise import EpisodeNoise
from autoprune.agent.replay import ExecutedActionReplayBuffer, TerminalRewardReplayBuffer
from autoprune.agent.trained_policy import network_arguments, network_class
from autoprune.agent.vec_env import Env
from autoprune.env.replay_seed import ReplaySeed


def build(agent: AgentSpec, *, env: Env | VecEnv, episode_steps: int, episodes: int, seed: int) -> BaseAlgorithm:
    """The Stable-Baselines3 model of an agent, not yet trained. Seeds the global generators.

    Args:
        agent: Which algorithm learns, and with which settings.
        env: The environment.
        episode_steps: Steps of one episode.
        episodes: How many episodes are learned from.
        seed: Of the random numbers, at least 0.
    """
    batch = env.num_envs if isinstance(env, VecEnv) else 1
    if agent.initial_std is not None and not isinstance(env.action_space, spaces.Box):
        raise ValueError(f"initial_std needs actions in a box, the environment's are {env.action_space}")
    options: dict[str, Any] = {}
    if agent.network == "transferable":
        options |= {"encoder": agent.encoder, "max_log_correction": agent.max_log_correction}
    elif agent.network != "whole":
        options |= {"shared": True, "group_bias": agent.network == "shared_bias"}
    if agent.budget_waves:
        options["budget_waves"] = agent.budget_waves
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
            if batch != replay.parallel:
                raise ValueError(f"{agent.algorithm} learns from {replay.parallel} episodes at once, got {batch}")
            noise = _noise(agent, replay, env=env, episodes=episodes, seed=seed)
            arguments |= _replay_arguments(replay, episode_steps, gamma=arguments.get("gamma", 0.99))
            arguments |= {} if noise is None else {"action_noise": noise}
        case Rollout() as rollout:
            if rollout.episodes % batch:
                raise ValueError(
                    f"{batch} environments cannot play rollouts of {rollout.episodes} episodes in whole batches"
                )
            steps = rollout.episodes * episode_steps
            arguments |= {"n_steps": steps // batch}
            if agent.algorithm in ("PPO", "RecurrentPPO"):
                arguments.setdefault("batch_size", steps)
    # Networks of a few thousand weights are fastest on the CPU.
    algorithms = ALGORITHMS if agent.critic_guidance is None else CRITIC_GUIDED
    model = algorithms[agent.algorithm](
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
            raise ValueError("standardised rewards are those of one-step episodes: use agent.env.mode=one_shot")
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


def seed_replay(agent: AgentSpec, model: BaseAlgorithm, seeds: Sequence[ReplaySeed], *, seed: int) -> None:
    """Fills the replay with what is known before the agent acts, and learns from it.

    Args:
        agent: Whose model it is.
        model: Not yet trained.
        seeds: What is known, for each observation that episodes begin at.
        seed: Of a critic-guided agent's candidates.

    Raises:
        ValueError: The agent has no replay, or its critics would have nothing to begin near.
    """
    if not seeds:
        if agent.critic_guidance is not None:
            raise ValueError(
                "critic_guidance begins near plans that are known: use agent.env.mode=one_shot and a prior"
            )
        return
    if not isinstance(model, OffPolicyAlgorithm) or not isinstance(model.replay_buffer, ExecutedActionReplayBuffer):
        raise ValueError(f"agent.env.seed_replay is what a replay begins with, and {agent.algorithm} has none")
    if isinstance(model, CriticGuided) and agent.critic_guidance is not None:
        model.guide(agent.critic_guidance, seeds, seed=seed)
    else:
        model.replay_buffer.seed(seeds)
    model.train(gradient_steps=max(1, model.gradient_steps), batch_size=model.batch_size)
