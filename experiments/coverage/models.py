"""Whole networks of many kinds, written as people write them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.coverage.blocks import Residual, RootMeanSquare, SqueezeExcite, Windows, cbr, head

S = nn.Sequential


class UNet(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module], up: Callable[[int, int], nn.Module]) -> None:
        super().__init__()

        def block(a: int, b: int) -> nn.Module:
            return S(nn.Conv2d(a, b, 3, padding=1), norm(b), nn.SiLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())

        self.a, self.b, self.c = block(3, 12), block(12, 24), block(24, 24)
        self.up1, self.d, self.up2, self.e = up(24, 24), block(48, 24), up(24, 12), block(24, 12)
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.avg_pool2d(a, 2))
        d = self.d(torch.cat([self.up1(self.c(F.max_pool2d(b, 2))), b], 1))
        return self.out(self.e(torch.cat([self.up2(d), a], 1)))


def upsampled(a: int, b: int) -> nn.Module:
    return S(nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 1))


class Diffusion(nn.Module):
    """A step's embedding is added to the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.a, self.norm = (
            S(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 16)),
            nn.Conv2d(3, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
        )
        self.b, self.out = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        h = self.a(x) + self.time(step)[:, :, None, None]
        return self.out(h + self.b(F.silu(self.norm(h))))


class Pyramid(nn.Module):
    """Features of two sizes, one head for both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.l1, self.l2 = cbr(3, 16), cbr(16, 24, stride=2), nn.Conv2d(16, 12, 1), nn.Conv2d(24, 12, 1)
        self.head = S(cbr(12, 12), nn.Conv2d(12, 4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.a(x)
        b = self.l2(self.b(a))
        return {"fine": self.head(self.l1(a) + F.interpolate(b, scale_factor=2.0)), "coarse": self.head(b)}


class Aspp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = cbr(3, 16)
        self.rates = nn.ModuleList(nn.Conv2d(16, 8, 3, padding=r, dilation=r) for r in (1, 2, 3))
        self.pool, self.out = nn.Conv2d(16, 8, 1), S(cbr(32, 16, 1), nn.Conv2d(16, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return F.interpolate(self.out(torch.cat([*(f(x) for f in self.rates), pooled], 1)), scale_factor=2.0)


class Crnn(nn.Module):
    """Columns of an image are a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.out = (
            S(cbr(1, 12), nn.MaxPool2d(2), cbr(12, 16)),
            nn.LSTM(64, 24, bidirectional=True),
            nn.Linear(48, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        n, c, y, w = h.shape
        return self.out(self.rnn(h.permute(3, 0, 1, 2).reshape(w, n, c * y))[0])


class Tagger(nn.Module):
    def __init__(self, kind: Any = nn.LSTM) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(50, 16), kind(16, 20, num_layers=2, batch_first=True, bidirectional=True)
        self.out = S(nn.Linear(40, 16), nn.Tanh(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(x))[0])


class Cells(nn.Module):
    """A loop that one writes oneself, with a state as wide as the module remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 16
        self.encode, self.cell, self.out = nn.Linear(6, 12), nn.GRUCell(12, self.hidden), nn.Linear(self.hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.hidden)
        for step in x.unbind(1):
            state = self.cell(F.relu(self.encode(step)), state)
        return self.out(state)


class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 12, 1)
        self.gates = nn.ModuleList(nn.Conv1d(12, 24, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.skips, self.backs = (
            nn.ModuleList(nn.Conv1d(12, 10, 1) for _ in range(3)),
            nn.ModuleList(nn.Conv1d(12, 12, 1) for _ in range(3)),
        )
        self.out = S(nn.ReLU(), nn.Conv1d(10, 10, 1), nn.ReLU(), nn.Conv1d(10, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), 0
        for gate, skip, back in zip(self.gates, self.skips, self.backs, strict=True):
            a, b = gate(x).chunk(2, 1)
            h = torch.tanh(a) * torch.sigmoid(b)
            x, total = x + back(h), total + skip(h)
        return self.out(total)


class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.local, self.glob = (
            S(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU()),
            S(nn.Conv1d(16, 32, 1), nn.ReLU()),
        )
        self.out = S(nn.Conv1d(48, 16, 1), nn.ReLU(), nn.Conv1d(16, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        local = self.local(x)
        whole = self.glob(local).amax(2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.out(torch.cat([local, whole], 1))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Conv2d(3, 16, 4, stride=4), nn.LayerNorm(16), nn.LayerNorm(16)
        self.tokens, self.channels = (
            S(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16)),
            S(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)),
        )
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.out((x + self.channels(self.norm2(x))).mean(1))


class ViT(nn.Module):
    """Class token, position embedding; heads: one or several outputs."""

    def __init__(self, *blocks: nn.Module, d: int = 32, norm: Any = nn.LayerNorm, outputs: int = 1) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, d, 4, stride=4), nn.Parameter(torch.zeros(1, outputs, d))
        self.pos, self.blocks, self.norm = nn.Parameter(0.02 * torch.randn(1, 16 + outputs, d)), S(*blocks), norm(d)
        self.heads = nn.ModuleList(nn.Linear(d, 4) for _ in range(outputs))

    def forward(self, x: Tensor) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.norm(self.blocks(torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos))
        outputs = [out(x[:, i]) for i, out in enumerate(self.heads)]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.a, self.merge, self.b = (
            nn.Conv2d(3, 16, 2, stride=2),
            Windows(16, 2, 4),
            nn.Linear(64, 32),
            Windows(32, 4, 4),
        )
        self.norm, self.out = nn.LayerNorm(32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.patch(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1)
        return self.out(self.norm(self.b(self.merge(x))).mean((1, 2)))


class TorchEncoder(nn.Module):
    """nn.TransformerEncoder over a sequence, samples second as is PyTorch's default."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=batch_first)
        self.embed, self.encoder, self.out = nn.Linear(6, 24), nn.TransformerEncoder(layer, 2), nn.Linear(24, 4)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.out(x.mean(1 if self.batch_first else 0))


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.net, self.out = nn.Transformer(16, 2, 1, 1, 32, batch_first=True), nn.Linear(16, 50)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.out(self.net(self.embed(source), self.embed(target)))


class Decoder(nn.Module):
    """Tied embedding and output layer."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.embed, self.blocks, self.norm = nn.Embedding(50, 32), S(*blocks), RootMeanSquare(32)
        self.out = nn.Linear(32, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.blocks(self.embed(x))))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.out = (
            S(cbr(3, 12), nn.MaxPool2d(2), cbr(12, 16), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            S(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1)),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.out((self.encoder(first) - self.encoder(second)).abs())


class Multimodal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table, self.text = (
            S(cbr(3, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            S(nn.Linear(5, 10), nn.ReLU()),
            nn.EmbeddingBag(50, 8),
        )
        self.out = S(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4))

    def forward(self, image: Tensor, table: Tensor, text: Tensor) -> Tensor:
        return self.out(torch.cat([self.image(image), self.table(table), self.text(text)], 1))


class Interactions(nn.Module):
    """A recommender: embeddings of the same width are multiplied with one another."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item, self.dense = nn.Embedding(50, 12), nn.Embedding(50, 12), nn.Linear(4, 12)
        self.out = S(nn.Linear(15, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        dense = F.relu(self.dense(numbers))
        all_ = torch.stack([self.user(ids[:, 0]), self.item(ids[:, 1]), dense], 1)
        products = (all_ @ all_.transpose(1, 2))[:, [0, 0, 1], [1, 2, 2]]
        return self.out(torch.cat([dense, products], 1))


class GraphConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        x = F.relu(adjacency @ self.a(nodes))
        return self.out(F.relu(adjacency @ self.b(x)) + x)


class Fourier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.mlp, self.out = (
            nn.Linear(6, 16),
            nn.LayerNorm(16),
            S(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)),
            nn.Linear(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.norm(x + torch.fft.fft(x, dim=1).real)
        return self.out((x + self.mlp(x)).mean(1))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.back = nn.Linear(12, 20), nn.Linear(20, 8), nn.Linear(8, 20)

    def forward(self, x: Tensor) -> Tensor:
        code = F.gelu(self.b(F.gelu(self.a(x))))
        return F.linear(F.gelu(self.back(code)), self.a.weight.T)


class Views(nn.Module):
    """Widths are written down in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 16
        self.a, self.b, self.c, self.fc = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv1d(16, 12, 1),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.Linear(12, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.b(F.relu(self.a(x)).view(len(x), self.channels, -1)))
        return self.fc(F.relu(self.c(h.view(-1, 12, 16, 16))).mean((2, 3)))


class Auxiliary(nn.Module):
    """A head that is used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aux, self.out = cbr(3, 12), cbr(12, 16), head(12), head(16)

    def forward(self, x: Tensor) -> Any:
        a = self.a(x)
        y = self.out(self.b(a))
        return (y, self.aux(a)) if self.training else y


def bottleneck(a: int, m: int, b: int, groups: int = 1, extra: Callable[[int], nn.Module] | None = None) -> nn.Module:
    inner = [cbr(a, m, 1), cbr(m, m, 3, groups=groups), nn.Conv2d(m, b, 1), nn.BatchNorm2d(b)]
    inner += [extra(b)] if extra else []
    return Residual(S(*inner), None if a == b else nn.Conv2d(a, b, 1))


def inverted(a: int, b: int, t: int = 3, se: bool = False) -> nn.Module:
    m = a * t
    inner = S(
        cbr(a, m, 1, act=nn.Hardswish),
        cbr(m, m, 3, groups=m, act=nn.Hardswish),
        *([SqueezeExcite(m)] if se else []),
        nn.Conv2d(m, b, 1),
        nn.BatchNorm2d(b),
    )
    return Residual(inner) if a == b else inner


def mha(d: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(d, heads, 2 * d, batch_first=True, norm_first=True)


class SplitSizes(nn.Module):
    """Widths of the parts stand in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [10, 6]
        self.a, self.b, self.out = nn.Conv2d(3, 16, 3), nn.Conv2d(6, 8, 1), nn.Conv2d(18, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        u, v = torch.split(F.relu(self.a(x)), self.sizes, 1)
        return self.out(torch.cat([u, F.relu(self.b(v))], 1)).mean((2, 3))


class OwnParameters(nn.Module):
    """An attention whose projections are parameters of its own; the output layer is the embedding."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.embed = heads, nn.Embedding(50, 24)
        self.in_weight, self.in_bias = nn.Parameter(0.2 * torch.randn(72, 24)), nn.Parameter(torch.zeros(72))
        self.out_weight = nn.Parameter(0.2 * torch.randn(24, 24))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, _ = x.shape
        q, k, v = F.linear(x, self.in_weight, self.in_bias).chunk(3, -1)
        q, k, v = (z.view(n, t, self.heads, -1).transpose(1, 2) for z in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)
        return F.linear(x + F.linear(mixed, self.out_weight), self.embed.weight)
