"""A learned policy as a schedule: what an agent of `Schedule-v0` or of a table decides, without its library."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from autoprune.files import atomic_write
from autoprune.ranges import Text, checked
from autoprune.schedule.decision import Decision, TrainingState, density_after
from autoprune.schedule.signals import FEATURES

ZOO = Path(__file__).parent.parent / "zoo"
SHIPPED = "shipped"
FORMAT = "autoprune schedule policy 1"
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"Tanh": nn.Tanh, "ReLU": nn.ReLU}


@dataclass(frozen=True, slots=True, eq=False)
class PolicySchedule:
    """Features → one of so many shares of the way to the target, at evenly spaced decision points."""

    network: nn.Sequential
    """[features] → a value of each share; the highest is taken."""
    decisions: int
    """In a training, as in the episodes that it learned from."""

    def __call__(self, state: TrainingState) -> Decision:
        if state.signals is None:
            raise ValueError("a policy decides by signals, which train_pruned measures for it; call it through that")
        if state.decision >= self.decisions:
            return Decision(density=state.target)
        features = torch.tensor([state.signals[name] for name in FEATURES], dtype=torch.float32)
        with torch.no_grad():
            values = self.network(features)
        share = int(values.argmax()) / (len(values) - 1)
        density = density_after(share, density=state.density, target=state.target)
        return Decision(density=density, until=(state.decision + 1) / self.decisions)


@checked
def policy_schedule(*, policy: Text) -> PolicySchedule:
    """Returns the schedule of a policy that `save_policy_schedule` wrote.

    Args:
        policy: Its path without a suffix, or "shipped", which learned on both tables of schedules.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is damaged, or sees other features.
    """
    path = ZOO / "schedule_policy" if policy == SHIPPED else Path(policy)
    weights, described = path.with_suffix(".safetensors"), path.with_suffix(".json")
    missing = [str(file) for file in (weights, described) if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"schedule.policy={policy} needs {missing[0]}, which is not there")
    try:
        card = json.loads(described.read_text(encoding="utf-8"))
        tensors = safetensors.torch.load_file(weights)
        layers: list[nn.Module] = []
        for number in range(int(card["layers"])):
            if number:
                layers.append(ACTIVATIONS[card["activation"]]())
            layers.append(_linear(tensors[f"{number}.weight"], tensors[f"{number}.bias"]))
        if card["format"] != FORMAT or card["features"] != list(FEATURES):
            raise ValueError("it was written for other features, or by another version")
        return PolicySchedule(nn.Sequential(*layers).eval(), int(card["decisions"]))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no policy of schedules, or damaged: {error}") from error


def save_policy_schedule(network: nn.Module, path: Path, *, decisions: int, card: Mapping[str, Any]) -> None:
    """`path`.safetensors and `path`.json hold the policy.

    Args:
        network: Linear layers with one kind of activation between them: features → a value of each action.
        path: Without a suffix.
        decisions: In an episode.
        card: More of what is said of it: JSON values.

    Raises:
        ValueError: The network is built otherwise.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    kinds = {type(module).__name__ for module in network.modules() if not any(True for _ in module.children())}
    activations = kinds - {"Linear", "Flatten", "Identity"}
    if not linear or linear[0].in_features != len(FEATURES) or len(activations) > 1 or activations - set(ACTIVATIONS):
        raise ValueError(
            f"a policy of schedules is linear layers from {len(FEATURES)} features with Tanh or ReLU between them, got "
            f"{sorted(kinds)}"
        )
    tensors: dict[str, Tensor] = {}
    for number, layer in enumerate(linear):
        tensors |= {f"{number}.weight": layer.weight.detach(), f"{number}.bias": layer.bias.detach()}
    record = {
        "format": FORMAT,
        "layers": len(linear),
        "activation": next(iter(activations), "Tanh"),
        "features": list(FEATURES),
        "decisions": decisions,
        **card,
    }
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    for suffix, content in ((".safetensors", data), (".json", (json.dumps(record, indent=1) + "\n").encode())):
        with atomic_write(path.with_suffix(suffix)) as partial:
            partial.write_bytes(content)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer
