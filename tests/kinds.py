"""Small tasks of every kind of output, on random data; nothing was trained."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.roles import Roles
from autoprune.task.task import Task


class Heads(nn.Module):
    """Features of images or tables, and a head for each output."""

    def __init__(self, *widths: int, dense: bool = False, probabilities: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 1))
        self.heads = nn.ModuleList([nn.Conv2d(8, width, 1) if dense else nn.Linear(8, width) for width in widths])
        self.dense, self.probabilities = dense, probabilities

    def forward(self, x: Tensor) -> Any:
        h = F.relu(self.body(x))
        outputs = [3 * head(h if self.dense else h.mean((2, 3))) for head in self.heads]
        outputs = [o.softmax(1) for o in outputs] if self.probabilities else outputs
        return outputs[0] if len(outputs) == 1 else {f"head{i}": o for i, o in enumerate(outputs)}


def kind_task(*widths: int, targets: Callable[[Tensor], Any] | None, dense: bool = False, **settings: Any) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 3, 6, 6, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Heads(*widths, dense=dense, probabilities=settings.pop("probabilities", False))
        for _ in range(20):  # so that BatchNorm knows its statistics
            model(x)
    roles = Roles.split(x, None if targets is None else targets(x))
    return Task(model.eval(), x[:1], roles, name="kinds", budget="macs:0.6", **settings)


KINDS: dict[str, Callable[[], Task]] = {
    "classification": lambda: kind_task(4, targets=lambda x: torch.arange(len(x)) % 4),
    "probabilities": lambda: kind_task(4, targets=lambda x: torch.arange(len(x)) % 4, probabilities=True),
    "segmentation": lambda: kind_task(4, targets=lambda x: (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0), dense=True),
    "with void": lambda: kind_task(
        4, targets=lambda x: torch.where(x[:, 2] > 1, 255, (x[:, 0] > 0).long()), dense=True
    ),
    "multilabel": lambda: kind_task(3, targets=lambda x: (x.mean((2, 3)) > 0).float()),
    "one logit": lambda: kind_task(1, targets=lambda x: (x.mean((1, 2, 3)) > 0).long()),
    "regression": lambda: kind_task(2, targets=lambda x: x.mean((2, 3))[:, :2]),
    "embedding": lambda: kind_task(6, targets=None, kind="embedding"),
    "unlabelled": lambda: kind_task(4, targets=None, kind="classification"),
    "two heads": lambda: kind_task(4, 2, targets=lambda x: torch.arange(len(x)) % 4),
    "multi-task": lambda: kind_task(
        4, 2, targets=lambda x: {"head1": x.mean((2, 3))[:, :2], "head0": torch.arange(len(x)) % 4}
    ),
}  # fmt: skip
