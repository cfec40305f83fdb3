"""Policies on disk: weights as safetensors, the rest as JSON, a card to read. Nothing is ever unpickled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from autoprune.agent.policy import Policy, build_network

SCHEMA = 1  # raised when a reader of the old files would misread the new ones
WEIGHTS, RECORD, CARD = "policy.safetensors", "policy.json", "README.md"


@dataclass(frozen=True, slots=True)
class Training:
    """What a policy was trained on, and what its observations and actions mean.

    features: names of the observation's features. mode: "layerwise" or "one_shot". actions: what −1 and 1 ask for.
    """

    features: Sequence[str]
    mode: str
    actions: str
    tasks: Sequence[str]
    budget: str
    seeds: Sequence[int]
    evaluations: int


def save_policy(policy: Policy, folder: Path, *, training: Training) -> None:
    """Writes policy.safetensors, policy.json and README.md. The JSON comes last: where it is, the policy is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    save_file({name: weight.contiguous() for name, weight in policy.network.state_dict().items()}, folder / WEIGHTS)
    (folder / CARD).write_text(_card(policy, training), encoding="utf-8")
    record = {
        "schema": SCHEMA,
        "algorithm": policy.algorithm,
        "architecture": policy.architecture,
        "observation": _space_as_json(policy.network.observation_space),
        "action": _space_as_json(policy.network.action_space),
        "training": asdict(training),
    }
    partial = folder / f"{RECORD}.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / RECORD)


def load_policy(folder: Path) -> Policy:
    """The saved policy; it acts as it did."""
    record = _read_record(folder)
    try:
        network = build_network(
            record["algorithm"],
            record["architecture"],
            observation_space=_space_from_json(record["observation"]),
            action_space=_space_from_json(record["action"]),
        )
        network.load_state_dict(load_file(folder / WEIGHTS))
    except KeyError as error:
        raise ValueError(f"{folder / RECORD} does not describe a policy: {error} is missing or unknown") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / RECORD} does not describe a policy: {error}") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} does not hold this policy's weights: {error}") from error
    network.set_training_mode(False)
    return Policy(record["algorithm"], record["architecture"], network)


def load_training(folder: Path) -> Training:
    """What the saved policy was trained on."""
    try:
        return Training(**_read_record(folder)["training"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / RECORD} does not say what the policy was trained on: {error}") from error


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not path.is_file():
        raise ValueError(f"{folder} holds no policy: there is no {RECORD} in it")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path} has schema {schema!r}, this version reads {SCHEMA}: use the version that wrote it")
    return dict(record)


def _space_as_json(space: spaces.Space[Any]) -> dict[str, Any]:
    match space:
        case spaces.Discrete():
            return {"kind": "discrete", "n": int(space.n)}
        case spaces.Box() if space.is_bounded():
            return {"kind": "box", "low": space.low.tolist(), "high": space.high.tolist()}
        case spaces.Box():
            return {"kind": "unbounded", "shape": list(space.shape)}
    raise ValueError(f"a policy over {space} cannot be saved; only boxes and discrete levels can")


def _space_from_json(record: Mapping[str, Any]) -> gymnasium.Space[Any]:
    match record["kind"]:
        case "discrete":
            return spaces.Discrete(record["n"])
        case "box":
            return spaces.Box(np.array(record["low"], np.float32), np.array(record["high"], np.float32))
        case "unbounded":
            return spaces.Box(-np.inf, np.inf, tuple(record["shape"]), np.float32)
    raise ValueError(f"unknown space {record['kind']!r}")


def _card(policy: Policy, training: Training) -> str:
    network = policy.architecture
    return f"""# A pruning policy

{policy.algorithm}, hidden layers {network["hidden"]}, {network["activation"]}. It proposes how much of each group of a
network to keep ({training.mode}); an action means: {training.actions}.

| | |
|---|---|
| trained on | {", ".join(training.tasks)} |
| budget | {training.budget} |
| evaluations | {training.evaluations} |
| seeds | {", ".join(map(str, training.seeds))} |
| observation | {", ".join(training.features)} |

`{WEIGHTS}` holds the weights, `{RECORD}` what is needed to rebuild the network; neither is a pickle. Load it with
`autoprune.agent.bundle.load_policy(folder).act(observation)`.
"""
