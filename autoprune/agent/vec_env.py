"""Gymnasium's vector environments as Stable-Baselines3 wants them."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from autoprune.evaluation.metered import EvaluationsSpent

Env = gymnasium.Env[Any, Any]
VecEnvs = VectorEnv[Any, Any, Any]


class SynchronousVecEnv(VecEnv):
    """A vector environment whose episodes end together and begin again in the same step.

    Of the infos it passes on `executed_action`, which a replay needs, and at the end what Stable-Baselines3 asks for;
    there is no environment behind an index, so none can be called.
    """

    def __init__(self, env: VecEnvs) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"episodes must begin again in the step that ends them: AutoresetMode.SAME_STEP, not {mode}"
            )
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        observations: NDArray[Any] = self.env.reset(seed=self._seeds[0])[0]  # the others count up from it
        self._reset_seeds()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminated, truncated, info_arrays = self.env.step(self._actions)
        dones = terminated | truncated
        if not dones.any():
            return observations, rewards, dones, self._executed(info_arrays)
        if not dones.all():
            raise ValueError(f"episodes in lockstep must end together, but only {dones.sum()} of {len(dones)} did")
        infos = self._executed(info_arrays["final_info"])
        for info, last, short in zip(infos, info_arrays["final_obs"], truncated & ~terminated, strict=True):
            info |= {"terminal_observation": last, "TimeLimit.truncated": bool(short)}
        return observations, rewards, dones, infos

    def _executed(self, info_arrays: dict[str, Any]) -> list[dict[str, Any]]:
        if "executed_action" not in info_arrays:
            return [{} for _ in range(self.num_envs)]
        return [{"executed_action": action} for action in info_arrays["executed_action"]]

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """What the vector environment says, for each.

        Args:
            attr_name: The attribute's name.
            indices: Which environments; None for all.
        """
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise NotImplementedError(f"episodes in lockstep have no {attr_name!r} of their own to set")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError(f"episodes in lockstep have no {method_name!r} of their own to call")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


class StepLimit(VecEnvWrapper):
    """Ends learning before a step that must not happen, when all that happened has been stored and learned from.

    A callback of Stable-Baselines3 could only stop after a step, and would lose what that step brought. `episodes` and
    `steps` count what was answered, over all environments.
    """

    def __init__(self, env: VecEnv, *, stop: Callable[[], bool], most_steps: int) -> None:
        super().__init__(env)
        self.steps = self.episodes = 0
        self.most_steps = most_steps
        self._stop = stop

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_async(self, actions: NDArray[Any]) -> None:
        if self.steps >= self.most_steps or self._stop():
            raise EvaluationsSpent("the search is over")
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        answer = self.venv.step_wait()
        self.steps += self.num_envs
        self.episodes += int(np.sum(answer[2]))
        return answer


def vectorized(env: Env | VecEnvs) -> VecEnv:
    """Either kind of environment, with the returns and lengths of episodes in its infos."""
    return VecMonitor(SynchronousVecEnv(env) if isinstance(env, VectorEnv) else DummyVecEnv([lambda: env]))
