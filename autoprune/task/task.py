"""A task: a trained network, its data in four disjoint roles, and the metric that says how good it is."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

Metric = Callable[[Tensor, Tensor], float]
Loss = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[[nn.Module, Tensor], Tensor]
Measure = Callable[[nn.Module], Mapping[str, float | str]]


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Top-1 accuracy in [0, 1] of logits [N, classes] against class indices [N]."""
    return (outputs.argmax(dim=1) == targets).float().mean().item()


def first_outputs(outputs: object) -> Tensor:
    """The tensor that is judged: the outputs themselves, or the first of a tuple, list or mapping's values."""
    while not isinstance(outputs, Tensor):
        if isinstance(outputs, Mapping):
            outputs = next(iter(outputs.values()))
        elif isinstance(outputs, tuple | list):
            outputs = outputs[0]
        else:
            raise TypeError(f"the model returns {type(outputs).__name__}; a tensor, or a container of one, is needed")
    return outputs


def plain_forward(network: nn.Module, inputs: Tensor) -> Tensor:
    """What a network returns that takes one tensor: its outputs, or the first of several."""
    return first_outputs(network(inputs))


@torch.inference_mode()
def outputs_of(network: nn.Module, inputs: Tensor, forward: Forward = plain_forward) -> Tensor:
    """The network's outputs for a batch [N, ...], in float32 and without gradients."""
    return forward(network, inputs).float()


@dataclass(frozen=True, slots=True, eq=False)
class Role:
    """Preloaded samples that serve one purpose.

    inputs [N, ...], targets [N, ...], and one `id` per sample that is unique within its source; without ids, a sample
    is identified by a hash of its content.
    """

    inputs: Tensor
    targets: Tensor
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"a role has {len(self.inputs)} inputs but {len(self.targets)} targets")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(_content_ids(self.inputs)))
        if len(self.ids) != len(self.inputs):
            raise ValueError(f"a role has {len(self.inputs)} inputs but {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.inputs)

    @classmethod
    def from_dataset(cls, dataset: "Dataset[tuple[Tensor, Tensor]]", *, limit: int | None = None) -> "Role":
        """Loads a map-style dataset of (input, target) pairs into memory, at most `limit` samples."""
        size = len(dataset)  # type: ignore[arg-type]
        samples = [dataset[i] for i in range(size if limit is None else min(size, limit))]
        if not samples:
            raise ValueError(f"a role needs at least one sample; the dataset has {size} and the limit is {limit}")
        inputs = torch.stack([torch.as_tensor(x) for x, _ in samples])
        return cls(inputs, torch.stack([torch.as_tensor(y) for _, y in samples]))

    def __getitem__(self, rows: slice) -> "Role":
        return Role(self.inputs[rows], self.targets[rows], self.ids[rows])

    def to(self, device: torch.device) -> "Role":
        return Role(self.inputs.to(device), self.targets.to(device), self.ids)

    @property
    def digest(self) -> str:
        """A hash of ids, inputs and targets: the same samples in the same order, whatever machine."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        for tensor in (self.inputs, self.targets):
            digest.update(_rows(tensor).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Roles:
    """train: recovery; calibration: scores of units; search: rewards and the choice of a plan; test: reports only.

    Raises ValueError where a role is empty or two roles share a sample.
    """

    train: Role
    calibration: Role
    search: Role
    test: Role

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name, role in self.items():
            if not len(role):
                raise ValueError(f"data role {name!r} is empty; every role needs at least one sample")
            shared = [i for i in role.ids if seen.get(i, name) != name]
            if shared:
                raise ValueError(
                    f"data roles {seen[shared[0]]!r} and {name!r} share {len(shared)} samples, e.g. {shared[0]}; "
                    "the four roles must be disjoint, or rewards would see what reports are made of"
                )
            seen |= dict.fromkeys(role.ids, name)

    def items(self) -> Iterator[tuple[str, Role]]:
        return ((f.name, getattr(self, f.name)) for f in fields(self))

    @property
    def digests(self) -> dict[str, str]:
        return {name: role.digest for name, role in self.items()}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to build the dense network again without pickle: a function of autoprune's, by name, and JSON arguments."""

    builder: str
    arguments: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A trained `model` (kept in eval mode), one `example_input` [1, ...], the data roles and a metric.

    metric: (outputs, targets) → float, higher is better; a search sees its mean over blocks of a few samples, so it
    should be a mean over samples itself, as accuracy is. loss: what training minimises, a mean as well.
    keep: qualified names of layers whose outputs are never pruned. budget: what is asked for when nobody says.
    recovery_steps: of recovery, where nobody says; 0 for models whose training takes hours.
    augment: (inputs, generator) → inputs of the same shape, for training only.
    forward: (network, inputs) → the outputs that are judged: how a network is called, and what of its answer counts.
    block: samples that are judged together; two networks are compared in pairs of blocks.
    prune: kinds of groups that are looked for (structure.prune says which there are); None: what a trace finds.
    measure: network → more of what a final report says of it, by name. tokenizer: the folder of the files that turn
    text into the model's tokens, which go wherever the network goes. onnx: final networks are exported to ONNX as well.
    levels: how many numbers of units each group may keep, spaced evenly; None: all that there are. proxy_samples: how
    many of the search role rewards see, where nobody says. table: a file where every plan was judged (docs/tables.md),
    which answers in the proxy's place; None: plans are judged when asked for.

    >>> task = Task(model, torch.zeros(1, 3, 32, 32), Roles(train, calibration, search, test))
    """

    model: nn.Module
    example_input: Tensor
    data: Roles
    metric: Metric = accuracy
    name: str = "custom"
    loss: Loss = F.cross_entropy
    keep: frozenset[str] = frozenset()
    budget: str | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    architecture: Architecture | None = None
    forward: Forward = plain_forward
    block: int = 10
    prune: tuple[str, ...] | None = None
    measure: Measure | None = None
    tokenizer: Path | None = None
    onnx: bool = True
    recovery_steps: int = 150
    levels: int | None = None
    proxy_samples: int | None = None
    table: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", frozenset(self.keep))
        unknown = sorted(self.keep - {name for name, _ in self.model.named_modules()})
        if unknown:
            layers = [n for n, m in self.model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            raise ValueError(f"task.keep names {unknown}, which the model lacks; its layers are {layers}")
        for name, role in self.data.items():
            if role.inputs.shape[1:] != self.example_input.shape[1:]:
                raise ValueError(
                    f"samples of role {name!r} have shape {tuple(role.inputs.shape[1:])}, "
                    f"but the example input has {tuple(self.example_input.shape[1:])}"
                )
        self.model.eval()

    @property
    def device(self) -> torch.device:
        return self.example_input.device

    def keeping(self, names: frozenset[str]) -> "Task":
        """The same task with more layers never pruned."""
        return replace(self, keep=self.keep | names)

    def with_data(self, data: Roles) -> "Task":
        """The same network and metric on other data."""
        return replace(self, data=data)


def _content_ids(inputs: Tensor) -> Iterator[str]:
    for row in _rows(inputs):
        yield hashlib.blake2b(row.tobytes(), digest_size=12).hexdigest()


def _rows(tensor: Tensor) -> NDArray[np.uint8]:
    """The bytes of every sample, [N, bytes]; NumPy lacks some of PyTorch's types, such as bfloat16."""
    return tensor.detach().cpu().contiguous().unsqueeze(-1).flatten(1).view(torch.uint8).numpy()
