"""Every source of randomness, derived from the run's one seed and a name for its purpose."""

import hashlib

import numpy as np
import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A 31-bit seed that differs between purposes, so that one stage's draws never shift another's.

    Args:
        seed: The run's seed, at least 0.
        purpose: What the numbers are for; different purposes draw independent ones.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "big") >> 1


def numpy_rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derived_seed(seed, purpose))


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(seed, purpose))
