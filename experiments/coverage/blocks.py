"""Blocks that networks of many kinds are made of, written as people write them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def cbr(a: int, b: int, k: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    return nn.Sequential(nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(b), act())


def head(c: int, classes: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


class Residual(nn.Module):
    """x + f(x), with a projection where widths differ."""

    def __init__(self, inner: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.shortcut = inner, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.inner(x)


class Branches(nn.Module):
    """What several branches make of x, one after the other along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Dense(nn.Module):
    """DenseNet's layer: its outputs are put beside its inputs."""

    def __init__(self, a: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(a), nn.Conv2d(a, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class SqueezeExcite(nn.Module):
    def __init__(self, c: int, r: int = 4) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(c, c // r, 1), nn.Conv2d(c // r, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class SpatialGate(nn.Module):
    """CBAM's second half: one map is multiplied into all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class SelectiveKernel(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b, self.fc, self.fcs = cbr(c, c), cbr(c, c, 5), nn.Linear(c, c // 2), nn.Linear(c // 2, 2 * c)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.a(x), self.b(x)], 1)
        weights = self.fcs(F.relu(self.fc(both.sum(1).mean((2, 3))))).view(len(x), 2, -1).softmax(1)
        return (both * weights[..., None, None]).sum(1)


class Shuffle(nn.Module):
    """ShuffleNet 2: half of the channels pass, then all are shuffled."""

    def __init__(self, c: int) -> None:
        super().__init__()
        h = c // 2
        self.branch = nn.Sequential(
            cbr(h, h, 1), nn.Conv2d(h, h, 3, padding=1, groups=h), nn.BatchNorm2d(h), cbr(h, h, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        passed, changed = x.chunk(2, 1)
        y = torch.cat([passed, self.branch(changed)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffledGroups(nn.Module):
    """ShuffleNet 1: grouped convolutions with a shuffle between."""

    def __init__(self, c: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.a, self.b, self.c = (
            cbr(c, c, 1, groups=groups),
            nn.Conv2d(c, c, 3, padding=1, groups=c),
            cbr(c, c, 1, groups=groups),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        n, c, h, w = y.shape
        y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return x + self.c(self.b(y))


class Ghost(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.primary, self.cheap = cbr(a, b // 2, 1), cbr(b // 2, b // 2, 3, groups=b // 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


class CrossStage(nn.Module):
    """CSPNet and YOLO's C2f: split by a number that the module remembers."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.c = b // 2
        self.cv1, self.cv2, self.m = cbr(a, b, 1, act=nn.SiLU), cbr(3 * self.c, b, 1, act=nn.SiLU), cbr(self.c, self.c)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).split((self.c, self.c), 1))
        y.append(y[-1] + self.m(y[-1]))
        return self.cv2(torch.cat(y, 1))


class ConvNeXt(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(c, c, 5, padding=2, groups=c), nn.LayerNorm(c)
        self.up, self.down, self.gamma = nn.Linear(c, 4 * c), nn.Linear(4 * c, c), nn.Parameter(1e-6 * torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class NonLocal(nn.Module):
    """Self-attention over positions with one head."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c, c // 4, 1), nn.Conv2d(c, c, 1)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).flatten(2) for f in (self.q, self.k, self.v))
        return x + self.gate * (v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)).view_as(x)


class Attention(nn.Module):
    """Multi-head attention with one projection for queries, keys and values, as timm writes it."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, d // heads
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
        mixed = (scores if bias is None else scores + bias).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, t, self.num_heads * self.head_dim))


class Encoder(nn.Module):
    """A pre-norm transformer block; scale: LayerScale."""

    def __init__(self, d: int, heads: int, norm: Any = nn.LayerNorm, scale: float | None = None) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = norm(d), Attention(d, heads), norm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.scale = None if scale is None else nn.Parameter(scale * torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        for change in (self.attn(self.norm1(x)), None):
            y = self.mlp(self.norm2(x)) if change is None else change
            x = x + (y if self.scale is None else self.scale * y)
        return x


class Windows(nn.Module):
    """Swin: attention within windows, which are folded into the batch, with a table of relative positions."""

    def __init__(self, d: int, heads: int, window: int) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.norm, self.attn = nn.LayerNorm(d), Attention(d, heads)
        self.table = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        between = (places[:, :, None] - places[:, None, :] + window - 1).permute(1, 2, 0)
        self.register_buffer("index", between[..., 0] * (2 * window - 1) + between[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, d = x.shape
        k = self.window
        y = self.norm(x).roll((-1, -1), (1, 2)).view(n, h // k, k, w // k, k, d).transpose(2, 3).reshape(-1, k * k, d)
        bias = self.table[self.index].permute(2, 0, 1)  # type: ignore[index]
        y = self.attn(y, bias).view(n, h // k, w // k, k, k, d).transpose(2, 3).reshape(n, h, w, d)
        return x + y.roll((1, 1), (1, 2))


class RootMeanSquare(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Llama(nn.Module):
    """A decoder's block: rotated queries that share keys, a gated MLP."""

    def __init__(self, d: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.head_dim, self.groups = d // heads, heads // key_heads
        self.norm1, self.norm2 = RootMeanSquare(d), RootMeanSquare(d)
        self.q, self.k = nn.Linear(d, d, bias=False), nn.Linear(d, key_heads * self.head_dim, bias=False)
        self.v, self.o = nn.Linear(d, key_heads * self.head_dim, bias=False), nn.Linear(d, d, bias=False)
        self.gate, self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (f(y).view(n, t, -1, self.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v))
        angle = torch.arange(t)[:, None] / 10 ** torch.linspace(0, 4, self.head_dim // 2)
        q, k = (_rotated(z, angle) for z in (q, k))
        k, v = (z.repeat_interleave(self.groups, 1) for z in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(n, t, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def _rotated(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Experts(nn.Module):
    """Every expert runs; a router weighs them."""

    def __init__(self, d: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(d, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(-1)
        return x + sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class MaskedLinear(nn.Linear):
    """A linear layer of which some weights are always zero, by a buffer of its own (arXiv 1502.03509)."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", (torch.rand(outputs, inputs) > 0.3).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class UpdatedLinear(nn.Linear):
    """A linear layer with an update of low rank beside its weight (arXiv 2106.09685)."""

    def __init__(self, inputs: int, outputs: int, rank: int = 3) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(rank, inputs)), nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


class StandardConv(nn.Conv2d):
    """Its weights are standardised over what they read (Big Transfer, NFNets)."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class FrozenBatchNorm2d(nn.Module):
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, c: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.1), ("running_mean", 0.2), ("running_var", 1.5)):
            self.register_buffer(name, torch.full((c,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[None, :, None, None] + (self.bias - self.running_mean * scale)[None, :, None, None]
