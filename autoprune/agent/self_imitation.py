"""Self-imitation (arXiv 1806.05635): a policy is drawn to the best that was met, which sampling alone may not reach."""

from typing import Any

import torch
from numpy.typing import NDArray

from autoprune.agent.trained_policy import TrainedPolicy

CLOSE = 1e-4  # mean squared error of actions in [−1, 1], at which a policy does what it was shown


def imitate(policy: TrainedPolicy, observations: NDArray[Any], actions: NDArray[Any], *, steps: int) -> float:
    """The policy's actions without exploring are nearer to the given ones; returns their mean squared error before.

    Its spread and its critic stay what they are.

    Args:
        policy: Of an on-policy agent with a Gaussian actor; its own optimizer makes the steps.
        observations: [n, features]
        actions: On the box's scale [n, …].
        steps: Of the optimizer, at most; fewer where the error is below CLOSE.
    """
    network: Any = policy.network
    seen, wanted = torch.as_tensor(observations), torch.as_tensor(actions)
    network.set_training_mode(True)
    first = float("nan")
    for step in range(steps):
        error = (network.get_distribution(seen).distribution.mean - wanted).square().mean()
        first = float(error.detach()) if step == 0 else first
        if float(error.detach()) < CLOSE:
            break
        network.optimizer.zero_grad()
        error.backward()
        network.optimizer.step()
    network.set_training_mode(False)
    return first
