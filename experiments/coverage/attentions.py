"""Attentions as they are written in many places: the heads' width taken from the input's, keys that heads share."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SplitAttention(nn.Module):
    """One projection split by a written-down width, heads of `C // n_head` (as small GPTs have it)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.n_head, self.n_embd = heads, width

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.size()
        q, k, v = (
            t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in self.c_attn(x).split(self.n_embd, 2)
        )
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(torch.ones(T, T).triu(1) > 0, float("-inf"))
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(B, T, C))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Windows with a bias for each relative position and head."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side, self.scale = heads, side, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(0.02 * torch.randn((2 * side - 1) ** 2, heads))
        places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None]).permute(1, 2, 0) + side - 1
        self.register_buffer("index", apart[..., 0] * (2 * side - 1) + apart[..., 1])
        self.index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-2, -1) + self.table[self.index.view(-1)].view(N, N, -1).permute(
            2, 0, 1
        )
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, N, C))  # type: ignore[no-any-return]


class SharedKeyAttention(nn.Module):
    """Queries of several heads, one key and one value for all of them, in one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.qkv, self.dense = nn.Linear(width, width + 2 * self.head_dim), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        mixed = self.qkv(x).view(B, T, self.heads + 2, self.head_dim)
        q, k, v = (t.transpose(1, 2) for t in (mixed[:, :, :-2], mixed[:, :, [-2]], mixed[:, :, [-1]]))
        heads = F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q))
        return self.dense(heads.transpose(1, 2).reshape(B, T, self.heads * self.head_dim))  # type: ignore[no-any-return]


class Attending(nn.Module):
    """A block of attention and neurons between an embedding of tokens and an output layer, without norms."""

    def __init__(self, attention: nn.Module, width: int = 24) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(5, width), attention
        self.up, self.down, self.out = nn.Linear(width, 40), nn.Linear(40, width), nn.Linear(width, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(x)
        return self.out(x + self.down(F.gelu(self.up(x))))  # type: ignore[no-any-return]


ATTENTIONS = {
    "heads of the input's width": lambda: Attending(SplitAttention(24, 4)),
    "windows of the input's width": lambda: Attending(WindowAttention(24, 4, 3)),
    "one key for all heads": lambda: Attending(SharedKeyAttention(24, 6)),
}
