"""Policies on disk: weights as safetensors, the rest as JSON, a card to read. Nothing is ever unpickled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from stable_baselines3.common.policies import BasePolicy

from autoprune.agent.card import card
from autoprune.agent.policy_file import (
    ANEW,
    CARD,
    OBSERVATION_VERSION,
    RECORD,
    SCHEMA,
    WEIGHTS,
    digest,
    is_transferable,
    read_record,
    sealed,
    space_as_json,
    space_from_json,
)
from autoprune.agent.trained_policy import TrainedPolicy, build_network
from autoprune.agent.training_record import TrainingRecord as TrainingRecord  # who saves a policy says this of it
from autoprune.env.episodes import HIGHEST, LOWEST
from autoprune.files import atomic_write
from autoprune.runs import versions


def save_policy(policy: TrainedPolicy, folder: Path, *, training: TrainingRecord) -> None:
    """Writes policy.safetensors, policy.json and README.md. The JSON comes last: where it is, the policy is whole.

    Args:
        policy: The trained policy.
        folder: Where the files lie.
        training: What the policy was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    save_file({name: weight.contiguous() for name, weight in policy.network.state_dict().items()}, folder / WEIGHTS)
    (folder / CARD).write_text(card(policy, training), encoding="utf-8")
    record = {
        "schema": SCHEMA,
        "autoprune": versions().get("autoprune"),
        "saved": datetime.now(UTC).date().isoformat(),
        "algorithm": policy.algorithm,
        "architecture": policy.architecture,
        "observation": space_as_json(policy.network.observation_space),
        "observation_version": OBSERVATION_VERSION,
        "action": space_as_json(policy.network.action_space),
        "training": asdict(training),
    }
    content = json.dumps(sealed(record, weights=(folder / WEIGHTS).read_bytes()), indent=2)
    with atomic_write(folder / RECORD) as partial:
        partial.write_text(content + "\n", encoding="utf-8")


def load_policy(folder: Path, *, groups: int | None = None, features: Sequence[str] | None = None) -> TrainedPolicy:
    """The saved policy; it acts as it did.

    Args:
        folder: Where the files lie.
        groups: Of the network that it is carried to; None: as many as it was trained with.
        features: The names that the caller's observations have.

    Raises:
        ValueError: What doesn't fit, and for a folder that was damaged or edited, or that holds what could run.
    """
    record = read_record(folder)
    training = _training_of(record, folder)
    architecture = record["architecture"]
    if features is not None:
        _check_features(folder, training.features, features)
    if groups is not None:
        _check_groups(folder, architecture, groups)
    try:
        seen, done = space_from_json(record["observation"]), space_from_json(record["action"])
        if is_transferable(architecture):
            seen, done = _carried_spaces(seen, done, features=len(training.features), groups=groups)
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn that nobody uses
            network = build_network(record["algorithm"], architecture, observation_space=seen, action_space=done)
    except KeyError as error:
        raise ValueError(f"{folder / RECORD} does not describe a policy: {error} is missing or unknown") from error
    except Exception as error:  # networks object to arguments in many ways, and these may be anybody's
        raise ValueError(f"{folder / RECORD} does not describe a policy: {error}") from error
    _fill(network, folder / WEIGHTS, expected=record["sha256"]["weights"])
    network.set_training_mode(False)
    return TrainedPolicy(record["algorithm"], architecture, network)


def load_training(folder: Path) -> TrainingRecord:
    """What the saved policy was trained on."""
    return _training_of(read_record(folder), folder)


def _training_of(record: Mapping[str, Any], folder: Path) -> TrainingRecord:
    try:
        return TrainingRecord.read(record["training"])
    except ValueError as error:
        raise ValueError(f"{folder / RECORD} does not say what the policy was trained on: {error}; {ANEW}") from error


def _check_features(folder: Path, trained: Sequence[str], expected: Sequence[str]) -> None:
    if list(trained) == list(expected):
        return
    unknown, lacking = sorted(set(trained) - set(expected)), sorted(set(expected) - set(trained))
    if unknown or lacking:
        difference = f"it reads {unknown}, which are unknown here, and does not read {lacking}"
    elif len(trained) != len(expected):
        difference = f"it reads {len(trained)} features, some of them twice; here there are {len(expected)}"
    else:
        index = next(i for i, pair in enumerate(zip(trained, expected, strict=True)) if pair[0] != pair[1])
        difference = f"in another order: {trained[index]!r} stands where {expected[index]!r} does here"
    raise ValueError(
        f"the policy in {folder} was trained on other observations: {difference}. Use the version that wrote it, or "
        "train it again"
    )


def _check_groups(folder: Path, architecture: Mapping[str, Any], groups: int) -> None:
    if not is_transferable(architecture):
        raise ValueError(
            f"the policy in {folder} cannot be carried to a network of {groups} groups: it has no encoder, and fits "
            "only the network that it was trained on. Use one that has an encoder, or load it without groups"
        )
    if groups < 1:
        raise ValueError(f"a network has at least one group, got groups={groups}")


def _carried_spaces(
    seen: spaces.Space[Any], done: spaces.Space[Any], *, features: int, groups: int | None
) -> tuple[spaces.Box, spaces.Box]:
    """Observations and actions for that many groups; None: for as many as in the spaces that were saved."""
    trained = done.shape[0] if done.shape else 0
    if seen.shape != (trained * (features + trained),):
        raise ValueError(
            f"an observation of {trained} groups and {features} features has {trained * (features + trained)} numbers, "
            f"not {seen.shape}"
        )
    count = trained if groups is None else groups
    return (
        spaces.Box(LOWEST, HIGHEST, (count * (features + count),), np.float32),
        spaces.Box(-1, 1, (count,), np.float32),
    )


def _fill(network: BasePolicy, path: Path, *, expected: str) -> None:
    """The network has the file's weights: all of them, of its shapes, and finite."""
    if not path.is_file():
        raise ValueError(f"{path} does not hold this policy's weights: there is no such file; {ANEW}")
    content = path.read_bytes()
    if digest(content) != expected:
        raise ValueError(
            f"{path} does not hold this policy's weights: its SHA-256 is {digest(content)}, and {RECORD} says "
            f"{expected}. It was cut short or changed; {ANEW}"
        )
    try:
        weights = load(content)
        network.load_state_dict(weights)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path} does not hold this policy's weights: {error}") from error
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(
                f"{path} holds weights that are not finite, in {name!r}: training diverged; train it again"
            )
