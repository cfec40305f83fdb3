"""nn.MultiheadAttention that may have fewer heads than its width has room for."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SlicedAttention(nn.Module):
    """What an nn.MultiheadAttention is made into before heads, inputs or outputs are taken from it.

    PyTorch's own needs inputs, heads and outputs of one width. This one has the same parameters under the same names,
    the same arguments and the same answers, and reads its sizes from its tensors. As PyTorch's encoder layers ask for
    the attributes of an nn.MultiheadAttention, it has those that they ask for.
    """

    _qkv_same_embed_dim = False  # keeps nn.TransformerEncoderLayer from a fused path that would go past this module

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    q_proj_weight: Tensor
    k_proj_weight: Tensor
    v_proj_weight: Tensor
    out_proj: nn.Linear

    def __init__(self, dense: nn.MultiheadAttention) -> None:
        super().__init__()
        if dense.bias_k is not None or dense.add_zero_attn:
            raise ValueError("an nn.MultiheadAttention with add_bias_kv or add_zero_attn cannot be sliced")
        self.head_dim, self.batch_first, self.dropout = dense.head_dim, dense.batch_first, dense.dropout
        for key in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"):
            self.register_parameter(key, getattr(dense, key))
        self.out_proj = dense.out_proj
        self.train(dense.training)

    @property
    def _features(self) -> int:
        """Of all heads together."""
        return int(self.out_proj.weight.shape[1])

    @property
    def num_heads(self) -> int:
        return int(self._features // self.head_dim)

    @property
    def embed_dim(self) -> int:
        return int(self.out_proj.weight.shape[0])

    def forward(  # noqa: PLR0913 - torch.nn.MultiheadAttention's signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What nn.MultiheadAttention returns: outputs, and the attention weights where they are asked for.

        Args:
            query: [T, N, E] or [N, T, E] by batch_first, or without N.
            key: Likewise, of S tokens.
            value: Likewise, of S tokens.
            key_padding_mask: [N, S] keys that nobody sees.
            need_weights: Whether attention weights are returned.
            attn_mask: [T, S] or [N · heads, T, S]: which keys a query does not see, or what is added.
            average_attn_weights: Whether the weights are one mean over heads.
            is_causal: That `attn_mask` is causal, a hint.
        """
        batched, inputs = query.ndim == 3, [query, key, value]
        if not batched:
            inputs = [x.unsqueeze(0) for x in inputs]
        elif not self.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for x, weight, bias in zip(inputs, self._projections(), biases, strict=True)
        )
        mask = _mask(attn_mask, key_padding_mask, q, k, batched=batched)
        if is_causal and mask is None:
            mask = torch.full((q.shape[2], k.shape[2]), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) / self.head_dim**0.5
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        outputs = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return outputs.squeeze(0), None if weights is None else weights.squeeze(0)
        return outputs if self.batch_first else outputs.transpose(0, 1), weights

    def _projections(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.in_proj_weight is None:
            return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        query, key, value = self.in_proj_weight.chunk(3)
        return query, key, value


def slice_attention(network: nn.Module, name: str) -> list[tuple[nn.Module, str]]:
    """Puts a SlicedAttention in the place of the network's nn.MultiheadAttention of that name, wherever it is held.

    Returns the modules that hold it, each with its name there; none where it is no nn.MultiheadAttention.

    Args:
        network: Changed in place.
        name: A module's qualified name.
    """
    dense = network.get_submodule(name)
    if not isinstance(dense, nn.MultiheadAttention):
        return []
    sliced = SlicedAttention(dense)
    places = [(module, key) for module in network.modules() for key, child in module._modules.items() if child is dense]
    for module, key in places:
        module._modules[key] = sliced
    return places


def slice_encoders(network: nn.Module) -> list[nn.TransformerEncoder]:
    """Encoders with a SlicedAttention make no nested tensors of padded inputs any more, which it does not read.

    Returns the encoders that did.

    Args:
        network: With attentions that are sliced already; changed in place.
    """
    encoders = [
        module
        for module in network.modules()
        if isinstance(module, nn.TransformerEncoder) and getattr(module, "use_nested_tensor", False)
        if any(isinstance(part, SlicedAttention) for part in module.modules())
    ]
    for encoder in encoders:
        encoder.use_nested_tensor = False
    return encoders


def _mask(
    attention: Tensor | None, padding: Tensor | None, query: Tensor, key: Tensor, *, batched: bool
) -> Tensor | None:
    """What is added to the scores [samples, heads, queries, keys], or None."""
    total: Tensor | None = None
    if attention is not None:
        if attention.ndim == 3:
            if len(attention) != query.shape[0] * query.shape[1]:
                raise ValueError(
                    f"an attention mask for each of {len(attention)} heads does not fit the heads that are left; give "
                    "one for all heads [queries, keys], or keep this attention whole (task.keep)"
                )
            attention = attention.unflatten(0, query.shape[:2])
        total = _additive(attention, query)
    if padding is not None:
        ignored = _additive(padding if batched else padding[None], query)[:, None, None, :]
        total = ignored if total is None else total + ignored
    return None if total is None else total.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
    return mask.to(like.dtype)
