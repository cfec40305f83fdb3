"""Exploration by noise on a deterministic actor's output, annealed over the few hundred episodes that a search has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from annotated_types import Gt, Le
from numpy.typing import NDArray
from stable_baselines3.common.noise import ActionNoise

from autoprune.ranges import NonNegative, Share, check_fields

Deviation = Annotated[float, Gt(0), Le(2)]  # of the action box [-1, 1], which is 2 wide

Sigma = Callable[[int], float]  # episode from 0, warm-up included → standard deviation in the action box [−1, 1]


class EpisodeNoise(ActionNoise):
    """Gaussian noise whose sigma depends on the episode.

    Stable-Baselines3 resets noise once before the first episode and once after each: that is what counts them. It also
    adds noise to the random actions of the warm-up, where sigma is therefore 0.

    >>> noise = EpisodeNoise(lambda episode: 0.5**episode, shape=(1,), rng=np.random.default_rng(0))
    >>> noise.reset(), noise.reset(), noise.sigma
    (None, None, 0.5)
    """

    def __init__(self, sigma: Sigma, *, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        super().__init__()
        self.episode = -1
        self._sigma, self._shape, self._rng = sigma, shape, rng

    @property
    def sigma(self) -> float:
        return self._sigma(self.episode)

    def reset(self) -> None:
        self.episode += 1

    def follow(self, actor: torch.nn.Module) -> None:
        """Lets noise that depends on the actor's output see it; Gaussian noise does not."""

    def __call__(self) -> NDArray[np.float32]:
        return self._rng.normal(0.0, self.sigma, self._shape).astype(np.float32)


class TruncatedEpisodeNoise(EpisodeNoise):
    """Noise such that actor's output + noise follows a normal around that output, truncated to the box [−1, 1].

    Adding a Gaussian and clipping would pile its tails up on the bounds: almost nothing kept, and everything kept.
    """

    def __init__(self, sigma: Sigma, *, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        super().__init__(sigma, shape=shape, rng=rng)
        self._mean: NDArray[np.float64] | None = None

    def follow(self, actor: torch.nn.Module) -> None:
        """Remembers what the actor said last: Stable-Baselines3 asks the actor, and then the noise, for each step."""

        def remember(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self._mean = output.detach().double().cpu().numpy()

        actor.register_forward_hook(remember)

    def __call__(self) -> NDArray[np.float32]:
        sigma = self.sigma
        if sigma == 0 or self._mean is None:
            return np.zeros(self._shape, np.float32)
        mean = np.clip(self._mean[-1], -1, 1)
        sample = self._rng.normal(mean, sigma)
        while (outside := np.abs(sample) > 1).any():  # at least .47 of the draws are inside at sigma 1
            sample[outside] = self._rng.normal(mean[outside], sigma)
        return np.asarray(sample - mean, np.float32)


class Noise(Protocol):
    """What a configuration says of exploration noise; the search's length and the action's shape come at run time."""

    def build(
        self, *, shape: tuple[int, ...], rng: np.random.Generator, warm_up_episodes: int, episodes: int
    ) -> EpisodeNoise: ...


@dataclass(frozen=True, slots=True)
class AnnealedGaussian:
    """Gaussian noise, clipped to the box, from `sigma` linearly to `final_sigma` over `fraction` of the search.

    Sigmas are standard deviations in the action box [−1, 1].
    """

    sigma: Deviation
    """Standard deviation at the beginning."""
    final_sigma: NonNegative
    """Standard deviation at the end, at least 0."""
    fraction: Share
    """Of the search after which the end is reached, in (0, 1]."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.agent.noise")
        if self.final_sigma > self.sigma:
            raise ValueError(f"final_sigma must be in [0, sigma = {self.sigma}], got {self.final_sigma}")

    def build(
        self, *, shape: tuple[int, ...], rng: np.random.Generator, warm_up_episodes: int, episodes: int
    ) -> EpisodeNoise:
        annealed = max(1.0, self.fraction * (episodes - warm_up_episodes))

        def sigma(episode: int) -> float:
            if episode < warm_up_episodes:
                return 0.0
            done = min(1.0, (episode - warm_up_episodes) / annealed)
            return self.sigma + done * (self.final_sigma - self.sigma)

        return EpisodeNoise(sigma, shape=shape, rng=rng)


@dataclass(frozen=True, slots=True)
class TruncatedNormal:
    """AMC's noise (arXiv 1802.03494): a truncated normal around the actor's output, sigma·decayⁿ in the n-th episode
    after the warm-up, however long the search is.

    `sigma` is in the action box [−1, 1], twice as wide as AMC's density in (0, 1]: the paper's 0.5 is 1.0 here. One
    difference is left: −1 is the least density of our environment, where AMC's box begins at 0.
    """

    sigma: Deviation
    """Standard deviation in the first episode after the warm-up."""
    decay: Share
    """What it is multiplied by in every episode, in (0, 1]."""

    def __post_init__(self) -> None:
        check_fields(self, "agent.agent.noise")

    def build(
        self, *, shape: tuple[int, ...], rng: np.random.Generator, warm_up_episodes: int, episodes: int
    ) -> TruncatedEpisodeNoise:
        def sigma(episode: int) -> float:
            return 0.0 if episode < warm_up_episodes else self.sigma * self.decay ** (episode - warm_up_episodes)

        return TruncatedEpisodeNoise(sigma, shape=shape, rng=rng)
