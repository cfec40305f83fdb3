"""A digits task that trains in milliseconds."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.task.shipped import digits_roles
from autoprune.task.task import Role, Roles, Task


def network(kind: str = "conv", *, seed: int = 0) -> nn.Module:
    """A small untrained network for 8×8 digits: "dense", "conv" (BatchNorm, dropout) or "wide"."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "dense":
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Flatten(), nn.Linear(128, 10)),
        )


def digits_task(kind: str = "conv", **changes: object) -> Task:
    roles = digits_roles()
    return Task(network(kind), roles.train.inputs[:1], roles, name=f"digits_{kind}", **changes)  # type: ignore[arg-type]


class Recurrent(nn.Module):
    """An embedding, a bidirectional LSTM and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.lstm = nn.LSTM(12, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.lstm(self.embedding(tokens))[0]
        return self.head(hidden[:, -1])


class Attending(nn.Module):
    """An encoder layer of attention, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(dim=1))


def normed() -> nn.Module:
    """Convolutions with BatchNorm and GroupNorm, a depthwise one among them, and no dropout."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.GroupNorm(4, 12), nn.ReLU()),
        *(nn.Conv2d(12, 12, 3, groups=12, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)),
    )


def transposed() -> nn.Module:
    """Convolutions, a transposed one between them."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU()),
        *(nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


NOISE: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator, int], Tensor]]] = {
    "recurrent": (Recurrent, lambda g, n: torch.randint(0, 20, (n, 7), generator=g)),
    "attending": (Attending, lambda g, n: torch.randn(n, 7, 12, generator=g)),
    "normed": (normed, lambda g, n: torch.randn(n, 1, 8, 8, generator=g)),
    "transposed": (transposed, lambda g, n: torch.randn(n, 1, 8, 8, generator=g)),
}


def noise_task(kind: str, samples: int = 64) -> Task:
    """One of the networks of `NOISE` on noise of four classes."""
    make, draw = NOISE[kind]
    generator = torch.Generator().manual_seed(0)

    def role() -> Role:
        return Role(draw(generator, samples), torch.randint(0, 4, (samples,), generator=generator))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    return Task(model, draw(generator, 1), Roles(role(), role(), role(), role()), name=kind)
