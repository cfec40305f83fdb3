"""ResNet-50 and ViT-B/16 at 224², with random weights and random images: what a run takes does not depend on either."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from autoprune.task.roles import Role, Roles
from autoprune.task.task import Task

CLASSES, SIZE = 1000, 224
NUMBERS = {"train": 64, "calibration": 128, "search": 3000, "test": 64}  # of 3,000, half make the rewards


class Images(Dataset[tuple[Tensor, int]]):
    """(image, class) pairs that are made when they are asked for, as others are read from a folder of files."""

    def __init__(self, number: int, *, seed: int) -> None:
        self.number, self.seed = number, seed

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + index)
        image = torch.randn(3, SIZE, SIZE, generator=generator)
        return image, int(torch.randint(CLASSES, (), generator=generator))


def resnet50(samples: int = NUMBERS["search"]) -> Task:
    """25.6 million parameters."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    return _task(ResNetForImageClassification(ResNetConfig(num_labels=CLASSES)), samples)


def vit_b16(samples: int = NUMBERS["search"]) -> Task:
    """86.6 million parameters."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    return _task(ViTForImageClassification(ViTConfig(num_labels=CLASSES)), samples)


def _task(model: torch.nn.Module, samples: int) -> Task:
    numbers = NUMBERS | {"search": samples}
    roles = {name: Role.from_dataset(Images(number, seed=seed)) for seed, (name, number) in enumerate(numbers.items())}
    return Task(
        model, roles["test"].inputs[:1], Roles(**roles), budget="macs:0.5", forward=_logits, recovery_steps=20
    )  # fmt: skip


def _logits(network: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = network(pixel_values=inputs).logits
    return logits
