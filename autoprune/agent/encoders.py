"""Encoders of all groups at once: every group is read beside the others, by the same weights for any number of them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

HEADS = 4


class DeepSetLayer(nn.Module):
    """A layer of deep sets (arXiv 1703.06114): a group is read beside the mean of all."""

    def __init__(self, inputs: int, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * inputs, width)
        self.activation = activation()

    def forward(self, x: Tensor, present: Tensor, edges: Tensor) -> Tensor:
        encoded: Tensor = self.activation(self.linear(torch.cat([x, mean_of(x, present).expand_as(x)], dim=2)))
        return encoded


class GraphLayer(nn.Module):
    """A layer of a graph network (arXiv 1704.01212): beside the mean of all stands that of a group's neighbours."""

    def __init__(self, inputs: int, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * inputs, width)
        self.activation = activation()

    def forward(self, x: Tensor, present: Tensor, edges: Tensor) -> Tensor:
        near = edges @ x / edges.sum(dim=2, keepdim=True).clamp(min=1)
        encoded: Tensor = self.activation(self.linear(torch.cat([x, near, mean_of(x, present).expand_as(x)], dim=2)))
        return encoded


class SetAttentionLayer(nn.Module):
    """A layer of a set transformer (arXiv 1810.00825): groups attend to those that are there."""

    def __init__(self, inputs: int, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        if width % HEADS:
            raise ValueError(f"encoder=attention has {HEADS} heads, so hidden layers are multiples of it; got {width}")
        self.enter = nn.Linear(inputs, width)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), activation(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, present: Tensor, edges: Tensor) -> Tensor:
        x = self.enter(x)
        batch, groups, width = x.shape
        parts = self.mix(self.before(x)).view(batch, groups, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        seen = (present > 0.5).transpose(1, 2)[:, None]  # [batch, 1, 1, groups]
        query, key, value = parts.unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, groups, width))
        encoded: Tensor = x + self.feed(self.after(x))
        return encoded


ENCODERS: Mapping[str, type[DeepSetLayer] | type[GraphLayer] | type[SetAttentionLayer]] = {
    "mlp": DeepSetLayer,
    "gnn": GraphLayer,
    "attention": SetAttentionLayer,
}


class Encoder(nn.Module):
    """[batch, groups, inputs] → [batch, groups, the last of `hidden`], layer by layer."""

    def __init__(self, kind: str, inputs: int, hidden: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        layer = ENCODERS[kind]
        self.layers = nn.ModuleList(layer(a, b, activation) for a, b in zip(widths, hidden, strict=False))

    def forward(self, x: Tensor, present: Tensor, edges: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, present, edges)
        return x


def mean_of(x: Tensor, present: Tensor) -> Tensor:
    """Over the groups that are there: [batch, groups, …], [batch, groups, 1] → [batch, 1, …].

    Args:
        x: Of every group [batch, groups, …].
        present: 1 where there is a group, 0 for padding [batch, groups, 1].
    """
    return (x * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
