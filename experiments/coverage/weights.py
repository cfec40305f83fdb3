"""Networks that multiply by parameters in functions of their own, and sums over units."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.coverage.blocks import cbr


class TiedT(nn.Module):
    """An autoencoder that decodes by its encoder's weights, with biases of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(12, 24)
        self.bot = nn.Linear(24, 16)
        self.b1 = nn.Parameter(torch.randn(24))
        self.b2 = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.enc(x))
        z = torch.relu(self.bot(h))
        h = torch.relu(F.linear(z, self.bot.weight.t(), self.b1))
        return F.linear(h, self.enc.weight.T, self.b2)


class TiedConv(nn.Module):
    """A convolutional one, whose decoder is the transpose of its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 16, 3, padding=1)
        self.c2 = nn.Conv2d(16, 24, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.c1(x))
        z = torch.relu(self.c2(h))
        h = torch.relu(F.conv_transpose2d(z, self.c2.weight, stride=2, padding=1, output_padding=1))
        return F.conv_transpose2d(h, self.c1.weight, padding=1)


class EinsumMoE(nn.Module):
    """All experts at once, weighted by a softmax; weights are [experts, inputs, outputs]."""

    def __init__(self, E: int = 4, D: int = 12, H: int = 20) -> None:
        super().__init__()
        self.inp = nn.Linear(12, 16)
        self.gate = nn.Linear(16, E)
        self.w1 = nn.Parameter(torch.randn(E, 16, H) * 0.2)
        self.b1 = nn.Parameter(torch.randn(E, H) * 0.2)
        self.w2 = nn.Parameter(torch.randn(E, H, 16) * 0.2)
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.inp(x))
        g = torch.softmax(self.gate(x), -1)
        h = torch.einsum("btd,edh->bteh", x, self.w1) + self.b1
        y = torch.einsum("bteh,ehd->bted", F.gelu(h), self.w2)
        return self.out(x + (y * g[..., None]).sum(2))


class BmmMoE(nn.Module):
    """All experts by batched matrix products."""

    def __init__(self, E: int = 4, H: int = 20) -> None:
        super().__init__()
        self.inp = nn.Linear(12, 16)
        self.gate = nn.Linear(16, E)
        self.w1 = nn.Parameter(torch.randn(E, 16, H) * 0.2)
        self.w2 = nn.Parameter(torch.randn(E, H, 16) * 0.2)
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        b, t, _ = x.shape
        x = torch.relu(self.inp(x)).flatten(0, 1)
        g = torch.softmax(self.gate(x), -1)
        h = torch.bmm(x.unsqueeze(0).expand(4, -1, -1), self.w1)
        y = torch.bmm(F.silu(h), self.w2)
        return self.out(x + (y * g.t().unsqueeze(-1)).sum(0)).view(b, t, -1)


class TopkMoE(nn.Module):
    """Each token goes to two experts, which add to a sum in place."""

    def __init__(self, E: int = 4, H: int = 20, k: int = 2) -> None:
        super().__init__()
        self.k = k
        self.inp = nn.Linear(12, 16)
        self.gate = nn.Linear(16, E, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, H), nn.GELU(), nn.Linear(H, 16)) for _ in range(E))
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.inp(x))
        f = x.reshape(-1, 16)
        p = torch.softmax(self.gate(f), -1)
        w, i = p.topk(self.k, -1)
        w = w / w.sum(-1, keepdim=True)
        out = torch.zeros_like(f)
        for e, ex in enumerate(self.experts):
            t, k = torch.where(i == e)
            if t.numel() == 0:
                continue
            out.index_add_(0, t, ex(f[t]) * w[t, k, None])
        return self.out((f + out).view(x.shape))


class TopkMoE3d(nn.Module):
    """The same where all experts are one tensor each, with gates."""

    def __init__(self, E: int = 4, H: int = 20, k: int = 2) -> None:
        super().__init__()
        self.k = k
        self.inp = nn.Linear(12, 16)
        self.gate = nn.Linear(16, E, bias=False)
        self.w1 = nn.Parameter(torch.randn(E, 2 * H, 16) * 0.2)
        self.w2 = nn.Parameter(torch.randn(E, 16, H) * 0.2)
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.inp(x))
        f = x.reshape(-1, x.shape[-1])
        p = torch.softmax(self.gate(f), -1)
        w, i = p.topk(self.k, -1)
        out = torch.zeros_like(f)
        for e in range(len(self.w1)):
            t, k = torch.where(i == e)
            g, u = F.linear(f[t], self.w1[e]).chunk(2, -1)
            out.index_add_(0, t, F.linear(F.silu(g) * u, self.w2[e]) * w[t, k, None])
        return self.out((f + out).view(x.shape))


class EinsumAttention(nn.Module):
    """Heads are a dimension of the projections."""

    def __init__(self, D: int = 16, H: int = 4, K: int = 6) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(D, H, K) * 0.3) for _ in range(3))
        self.o = nn.Parameter(torch.randn(H, K, D) * 0.3)
        self.f = nn.Linear(D, 32)
        self.g = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Any:
        q, k, v = (torch.einsum("btd,dhk->bthk", x, w) for w in (self.q, self.k, self.v))
        a = torch.softmax(torch.einsum("bthk,bshk->bhts", q, k) / q.shape[-1] ** 0.5, -1)
        y = torch.einsum("bhts,bshk->bthk", a, v)
        return self.g(torch.relu(self.f(x + torch.einsum("bthk,hkd->btd", y, self.o))))


class EqualisedLR(nn.Module):
    """Weights are parameters that are scaled where they are used, as in StyleGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(20, 12))
        self.w2 = nn.Parameter(torch.randn(20, 16))
        self.w3 = nn.Parameter(torch.randn(16, 4))
        self.scale = 0.3

    def forward(self, x: Tensor) -> Any:
        h = F.gelu(x @ (self.w1 * self.scale).T)
        h = F.gelu(h @ self.w2)
        return torch.addmm(torch.zeros(4), h, self.w3)


class SlicedInProj(nn.Module):
    """Gates and values are halves of one parameter."""

    def __init__(self, D: int = 12, H: int = 24) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2 * H, D) * 0.3)
        self.o = nn.Linear(H, 4)
        self.h = H

    def forward(self, x: Tensor) -> Any:
        a, b = self.w.chunk(2)
        return self.o(torch.sigmoid(F.linear(x, a)) * F.linear(x, b))


class GroupedTransposed(nn.Module):
    """Upsampling in four groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a = cbr(3, 16)
        self.b = cbr(16, 24, stride=2)
        self.u = nn.ConvTranspose2d(24, 32, 4, 2, 1, groups=4)
        self.n = nn.BatchNorm2d(32)
        self.c = cbr(32, 16)
        self.o = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Any:
        return self.o(self.c(torch.relu(self.n(self.u(self.b(self.a(x)))))))


class DLRM(nn.Module):
    """Dot products of all pairs of embeddings, the upper triangle of them (DLRM)."""

    def __init__(self, d: int = 16) -> None:
        super().__init__()
        self.emb = nn.ModuleList(nn.Embedding(50, d) for _ in range(3))
        self.bot = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, d), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(d + 6, 32), nn.ReLU(), nn.Linear(32, 1))
        i, j = torch.triu_indices(4, 4, 1)
        self.i, self.j = i, j

    def forward(self, c: Tensor, x: Tensor) -> Any:
        d = self.bot(x)
        t = torch.stack([d] + [e(c[:, k]) for k, e in enumerate(self.emb)], 1)
        z = torch.bmm(t, t.transpose(1, 2))[:, self.i, self.j]
        return self.top(torch.cat([d, z], 1))


class GRUSeq2Seq(nn.Module):
    """A bidirectional encoder, and a decoder that attends to it by dot products."""

    def __init__(self, h: int = 20) -> None:
        super().__init__()
        self.es = nn.Embedding(30, 12)
        self.et = nn.Embedding(30, 12)
        self.enc = nn.GRU(12, h, batch_first=True, bidirectional=True)
        self.br = nn.Linear(2 * h, 24)
        self.dec = nn.GRU(12, 24, batch_first=True)
        self.wa = nn.Linear(2 * h, 24)
        self.o = nn.Linear(48, 30)

    def forward(self, a: Tensor, b: Tensor) -> Any:
        e, h = self.enc(self.es(a))
        h = torch.tanh(self.br(torch.cat([h[0], h[1]], -1)))[None]
        d, _ = self.dec(self.et(b), h)
        k = self.wa(e)
        w = torch.softmax(d @ k.transpose(1, 2), -1)
        return self.o(torch.cat([d, w @ k], -1))


class BilinearNet(nn.Module):
    """Two inputs that meet in an nn.Bilinear."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 16)
        self.b = nn.Linear(7, 12)
        self.bi = nn.Bilinear(16, 12, 20)
        self.o = nn.Linear(20, 3)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.o(torch.relu(self.bi(torch.relu(self.a(x)), torch.relu(self.b(y)))))


class TwoTower(nn.Module):
    """Similarities of two embeddings, each of its own network."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16))
        self.b = nn.Sequential(nn.Linear(9, 24), nn.ReLU(), nn.Linear(24, 16))

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.a(x) @ self.b(y).T


class OneHead(nn.Module):
    """Queries, keys and values without heads."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Linear(12, 16)
        self.q = nn.Linear(16, 8)
        self.k = nn.Linear(16, 8)
        self.v = nn.Linear(16, 20)
        self.o = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.i(x))
        return self.o(torch.relu(torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5, -1) @ self.v(x)))
