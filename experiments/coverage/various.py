"""Networks of further kinds: pyramids, flows, scans, graphs, mixtures, folds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.coverage.blocks import cbr


class UNetPP(nn.Module):
    """Nested skips, and an output at every depth."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.MaxPool2d(2)
        self.x00 = cbr(3, 8)
        self.x10 = cbr(8, 16)
        self.x20 = cbr(16, 24)
        self.x01 = cbr(24, 8)
        self.x11 = cbr(40, 16)
        self.x02 = cbr(8 + 8 + 16, 8)
        self.o1 = nn.Conv2d(8, 2, 1)
        self.o2 = nn.Conv2d(8, 2, 1)

    def up(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Any:
        a = self.x00(x)
        b = self.x10(self.p(a))
        d = self.x20(self.p(b))
        e = self.x01(torch.cat([a, self.up(b)], 1))
        f = self.x11(torch.cat([b, self.up(d)], 1))
        g = self.x02(torch.cat([a, e, self.up(f)], 1))
        return self.o1(e), self.o2(g)


class FPNDet(nn.Module):
    """A feature pyramid with a head for classes and one for boxes, shared by all levels."""

    def __init__(self, A: int = 3, K: int = 4) -> None:
        super().__init__()
        self.A, self.K = A, K
        self.c1 = cbr(3, 12, stride=2)
        self.c2 = cbr(12, 16, stride=2)
        self.c3 = cbr(16, 24, stride=2)
        self.l = nn.ModuleList([nn.Conv2d(c, 16, 1) for c in (12, 16, 24)])
        self.cls = nn.Sequential(cbr(16, 16), nn.Conv2d(16, A * K, 1))
        self.box = nn.Sequential(cbr(16, 16), nn.Conv2d(16, A * 4, 1))

    def forward(self, x: Tensor) -> Any:
        a = self.c1(x)
        b = self.c2(a)
        c = self.c3(b)
        p = self.l[2](c)
        q = self.l[1](b) + F.interpolate(p, scale_factor=2)
        r = self.l[0](a) + F.interpolate(q, scale_factor=2)

        def f(m: nn.Module, t: Tensor, k: int) -> Tensor:
            return m(t).view(t.shape[0], self.A, k, -1).permute(0, 3, 1, 2).flatten(1, 2)

        return {
            "cls": torch.cat([f(self.cls, t, self.K) for t in (r, q, p)], 1),
            "box": torch.cat([f(self.box, t, 4) for t in (r, q, p)], 1),
        }


class Perceiver(nn.Module):
    """Learned latents that attend to the inputs."""

    def __init__(self, d: int = 16, n: int = 6) -> None:
        super().__init__()
        self.lat = nn.Parameter(torch.randn(1, n, d))
        self.q = nn.Linear(d, 24)
        self.k = nn.Linear(9, 24)
        self.v = nn.Linear(9, 24)
        self.o = nn.Linear(24, d)
        self.h = 4
        self.m1 = nn.Linear(d, 40)
        self.m2 = nn.Linear(40, d)
        self.out = nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Any:
        B = x.shape[0]
        z = self.lat.expand(B, -1, -1)

        def sp(t: Tensor) -> Tensor:
            return t.view(B, t.shape[1], self.h, -1).transpose(1, 2)

        y = (
            F.scaled_dot_product_attention(sp(self.q(z)), sp(self.k(x)), sp(self.v(x)))
            .transpose(1, 2)
            .reshape(B, z.shape[1], -1)
        )
        z = z + self.o(y)
        z = z + self.m2(F.gelu(self.m1(z)))
        return self.out(z.mean(1))


class MambaLike(nn.Module):
    """A depthwise convolution and a recurrence whose steps depend on the inputs."""

    def __init__(self, d: int = 8, e: int = 16, n: int = 4) -> None:
        super().__init__()
        self.inp = nn.Linear(d, 2 * e)
        self.conv = nn.Conv1d(e, e, 3, padding=2, groups=e)
        self.xp = nn.Linear(e, 2 * n + 2)
        self.dt = nn.Linear(2, e)
        self.A = nn.Parameter(torch.randn(e, n))
        self.D = nn.Parameter(torch.randn(e))
        self.out = nn.Linear(e, d)
        self.n = n
        self.head = nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Any:
        u, z = self.inp(x).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        dt, B, C = self.xp(u).split([2, self.n, self.n], -1)
        dt = F.softplus(self.dt(dt))
        A = -torch.exp(self.A)
        h = torch.zeros(x.shape[0], u.shape[-1], self.n)
        ys = []
        for t in range(x.shape[1]):
            h = torch.exp(dt[:, t, :, None] * A) * h + dt[:, t, :, None] * B[:, t, None] * u[:, t, :, None]
            ys.append((h * C[:, t, None]).sum(-1))
        y = torch.stack(ys, 1) + u * self.D
        return self.head(x + self.out(y * F.silu(z))).mean(1)


class FiLM(nn.Module):
    """A condition that scales and shifts every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.c = cbr(3, 16)
        self.d = nn.Conv2d(16, 16, 3, padding=1)
        self.n = nn.BatchNorm2d(16, affine=False)
        self.g = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 32))
        self.o = nn.Linear(16, 4)

    def forward(self, x: Tensor, c: Tensor) -> Any:
        h = self.c(x)
        g, b = self.g(c).chunk(2, 1)
        y = torch.relu(self.n(self.d(h)) * (1 + g[:, :, None, None]) + b[:, :, None, None])
        return self.o((h + y).mean((2, 3)))


class ConvMixer(nn.Module):
    """Depthwise convolutions with a residual connection, then mixing of channels."""

    def __init__(self, d: int = 24) -> None:
        super().__init__()
        self.s = nn.Sequential(nn.Conv2d(3, d, 4, 4), nn.GELU(), nn.BatchNorm2d(d))
        self.dw = nn.Sequential(nn.Conv2d(d, d, 3, padding=1, groups=d), nn.GELU(), nn.BatchNorm2d(d))
        self.pw = nn.Sequential(nn.Conv2d(d, d, 1), nn.GELU(), nn.BatchNorm2d(d))
        self.o = nn.Linear(d, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.s(x)
        x = self.pw(x + self.dw(x))
        return self.o(x.mean((2, 3)))


class TNet(nn.Module):
    """Points that are turned by matrices which the network itself writes."""

    def __init__(self) -> None:
        super().__init__()
        self.t1 = nn.Conv1d(3, 16, 1)
        self.t2 = nn.Linear(16, 9)
        self.a = nn.Conv1d(3, 24, 1)
        self.f1 = nn.Conv1d(24, 16, 1)
        self.f2 = nn.Linear(16, 24 * 24)
        self.b = nn.Conv1d(24, 32, 1)
        self.o = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Any:
        T = self.t2(torch.relu(self.t1(x)).amax(2)).view(-1, 3, 3)
        x = torch.relu(self.a(torch.bmm(T, x)))
        T = self.f2(torch.relu(self.f1(x)).amax(2)).view(-1, 24, 24)
        x = torch.bmm(T, x)
        return self.o(torch.relu(self.b(x)).amax(2))


class VQVAE(nn.Module):
    """Codes are the nearest entries of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Sequential(cbr(3, 16, stride=2), nn.Conv2d(16, 8, 1))
        self.code = nn.Embedding(12, 8)
        self.d = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1))

    def forward(self, x: Tensor) -> Any:
        z = self.e(x)
        f = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        i = torch.cdist(f, self.code.weight).argmin(1)
        q = self.code(i).view(z.shape[0], z.shape[2], z.shape[3], -1).permute(0, 3, 1, 2)
        q = z + (q - z).detach()
        return self.d(q)


class RealNVP(nn.Module):
    """A normalising flow of two coupling layers."""

    def __init__(self) -> None:
        super().__init__()
        self.n = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 8)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Any:
        ld = torch.zeros(len(x))
        for i, n in enumerate(self.n):
            a, b = x.chunk(2, 1)
            if i:
                a, b = b, a
            sc, t = n(a).chunk(2, 1)
            sc = torch.tanh(sc)
            b = b * sc.exp() + t
            ld = ld + sc.sum(1)
            x = torch.cat([a, b] if not i else [b, a], 1)
        return x, ld


class MDN(nn.Module):
    """Weights, means and deviations of a mixture."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.h = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 24), nn.Tanh())
        self.pi = nn.Linear(24, k)
        self.mu = nn.Linear(24, 2 * k)
        self.sg = nn.Linear(24, k)
        self.k = k

    def forward(self, x: Tensor) -> Any:
        h = self.h(x)
        return F.log_softmax(self.pi(h), -1), self.mu(h).view(-1, self.k, 2), F.softplus(self.sg(h))


class Bag(nn.Module):
    """A bag of words."""

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.EmbeddingBag(40, 16, mode="mean")
        self.l = nn.Linear(16, 24)
        self.p = nn.PReLU(24)
        self.o = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Any:
        return self.o(self.p(self.l(self.e(x))))


class LRN(nn.Module):
    """Channels that are normalised by their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.n = nn.LocalResponseNorm(3)
        self.p = nn.PReLU(16)
        self.b = nn.Conv2d(16, 24, 3, padding=1)
        self.c = nn.Conv2d(24, 16, 1)
        self.o = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        return self.o(torch.relu(self.c(torch.relu(self.b(self.n(self.p(self.a(x))))))).mean((2, 3)))


class Unshuffle(nn.Module):
    """Positions become channels and channels positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.u = nn.PixelUnshuffle(2)
        self.b = nn.Conv2d(32, 16, 3, padding=1)
        self.s = nn.PixelShuffle(2)
        self.c = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.c(self.s(torch.relu(self.b(self.u(torch.relu(self.a(x)))))))


class FoldNet(nn.Module):
    """Patches by unfold, put back by fold."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 8, 1)
        self.b = nn.Linear(8 * 4, 24)
        self.c = nn.Linear(24, 6 * 4)
        self.o = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Any:
        p = F.unfold(torch.relu(self.a(x)), 2, stride=2).transpose(1, 2)
        y = self.c(torch.relu(self.b(p))).transpose(1, 2)
        return self.o(torch.relu(F.fold(y, (8, 8), 2, stride=2)))


class TorchDecoder(nn.Module):
    """nn.TransformerDecoder with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 32, dropout=0.0, batch_first=True), 2)
        self.o = nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.o(self.m(x, y, tgt_mask=torch.triu(torch.full((5, 5), float("-inf")), 1)))


class GEGLU(nn.Module):
    """Gates by chunk, and by nn.GLU."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Linear(12, 16)
        self.w = nn.Linear(16, 64)
        self.v = nn.Linear(32, 16)
        self.g = nn.GLU(-1)
        self.z = nn.Linear(16, 48)
        self.y = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.i(x)
        a, b = self.w(x).chunk(2, -1)
        x = x + self.v(a * F.gelu(b))
        return self.y(self.g(self.z(x)))


class ChannelsLastNet(nn.Module):
    """Features come last, but for a depthwise convolution that is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 16)
        self.k = nn.Parameter(torch.randn(16, 1, 3, 3) * 0.3)
        self.b = nn.Linear(16, 32)
        self.c = nn.Linear(32, 16)
        self.o = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.a(x))
        y = F.conv2d(x.permute(0, 3, 1, 2), self.k, padding=1, groups=x.shape[-1]).permute(0, 2, 3, 1)
        return self.o((x + self.c(F.gelu(self.b(y)))).mean((1, 2)))


class GAT(nn.Module):
    """Heads of attention over the edges of a graph."""

    def __init__(self, h: int = 3, f: int = 8) -> None:
        super().__init__()
        self.h, self.f = h, f
        self.w = nn.Linear(5, h * f, bias=False)
        self.al = nn.Parameter(torch.randn(h, f))
        self.ar = nn.Parameter(torch.randn(h, f))
        self.o = nn.Linear(h * f, 4)

    def forward(self, x: Tensor, a: Tensor) -> Any:
        z = self.w(x).view(*x.shape[:2], self.h, self.f)
        left = (z * self.al).sum(-1)
        r = (z * self.ar).sum(-1)
        e = F.leaky_relu(left[:, :, None] + r[:, None], 0.2).masked_fill(a[..., None] < 0, -1e9)
        p = torch.softmax(e, 2)
        return self.o(torch.relu(torch.einsum("bijh,bjhf->bihf", p, z).flatten(2))).mean(1)


class HourglassShared(nn.Module):
    """The same blocks twice, and an output after each."""

    def __init__(self) -> None:
        super().__init__()
        self.i = cbr(1, 16)
        self.r = nn.Sequential(cbr(16, 8, 1), cbr(8, 8), nn.Conv2d(8, 16, 1))
        self.o = nn.Conv2d(16, 3, 1)
        self.m = nn.Conv2d(3, 16, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.i(x)
        outs = []
        for _ in range(2):
            y = self.r(x) + x
            p = self.o(y)
            outs.append(p)
            x = x + self.m(p) + y
        return outs


class ECA(nn.Module):
    """A convolution over the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.a = cbr(3, 16)
        self.k = nn.Conv1d(1, 1, 3, padding=1)
        self.b = cbr(16, 24)
        self.o = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        w = torch.sigmoid(self.k(x.mean((2, 3))[:, None])).squeeze(1)
        return self.o(self.b(x * w[:, :, None, None]).mean((2, 3)))


class CoordConvMax(nn.Module):
    """Two halves of which the larger one counts, on an image with its coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(5, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 32, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 1)
        self.o = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        n, _, h, w = x.shape
        g = torch.stack(torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij"))[None].expand(
            n, -1, -1, -1
        )
        y = torch.relu(self.a(torch.cat([x, g], 1)))
        a, b = self.b(y).chunk(2, 1)
        return self.o(torch.relu(self.c(torch.maximum(a, b))).amax((2, 3)))
