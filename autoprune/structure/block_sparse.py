"""Block-sparse attention: every block of queries sees only some blocks of keys (BigBird, arXiv 2007.14062)."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from autoprune.structure.groups import IntArray, Pattern

IMPLEMENTATIONS = ("sdpa", "eager")  # the others take no mask, or another kind of one


@dataclass(frozen=True, slots=True, eq=False)
class KeyBlocks:
    """Which blocks of keys each block of queries sees, first what goes last.

    Level k lets every query block see the first k key blocks of its row, so levels are nested.

    >>> KeyBlocks.big_bird(512, block=64, causal=True, seed=0).kept_pairs
    """

    tokens: int
    """T, the longest text."""
    block: int
    """Tokens in a block; the last block may be shorter."""
    causal: bool
    """Whether nobody sees the future."""
    order: IntArray
    """[blocks, blocks]: for each block of queries, blocks of keys. Causal rows hold only the blocks up to their own,
    then −1; a query block that has fewer than k keeps all of them."""

    @classmethod
    def big_bird(cls, tokens: int, *, block: int, causal: bool, seed: int) -> "KeyBlocks":
        """The order of `key_block_order`.

        Args:
            tokens: Of the longest text, at least 1.
            block: Tokens of a block, at least 1; the last block may be shorter.
            causal: Whether a token sees no later ones.
            seed: Of the order of the blocks outside the window.
        """
        return cls(tokens, block, causal, key_block_order(tokens, block=block, causal=causal, seed=seed))

    @classmethod
    def of(cls, pattern: Pattern) -> "KeyBlocks":
        """Those that the pattern describes."""
        return cls.big_bird(pattern.tokens, block=pattern.block, causal=pattern.causal, seed=pattern.seed)

    @property
    def levels(self) -> tuple[int, ...]:
        """The numbers of key blocks that may be kept, ascending: at least the own one, at most all."""
        return tuple(range(1, len(self.order) + 1))

    def allowed_blocks(self, kept: int) -> NDArray[np.bool_]:
        """[query blocks, key blocks]: whether a query block sees any of a key block when it keeps `kept` of them."""
        if not 1 <= kept <= len(self.order):
            raise ValueError(
                f"a query block keeps 1 to {len(self.order)} key blocks, got {kept}; with none there is nothing to mix"
            )
        seen = np.zeros(self.order.shape, np.bool_)
        rows, places = np.nonzero(self.order[:, :kept] >= 0)
        seen[rows, self.order[rows, places]] = True
        return seen

    def allowed(self, kept: int) -> Tensor:
        """[T, T] bool: which keys (second axis) each query sees at this level, causality included."""
        blocks = self.allowed_blocks(kept)
        tokens = blocks.repeat(self.block, axis=0).repeat(self.block, axis=1)[: self.tokens, : self.tokens]
        return torch.from_numpy(np.tril(tokens) if self.causal else tokens)

    @property
    def kept_pairs(self) -> IntArray:
        """[levels + 1]: the (query, key) pairs of tokens at each level, from none at 0 to all.

        Scores and mixing take 2 · heads · head_dim · pairs MACs for one text.
        """
        starts = np.arange(len(self.order)) * self.block
        size = np.minimum(self.block, self.tokens - starts)
        pairs = size[:, None] * size
        if self.causal:
            np.fill_diagonal(pairs, size * (size + 1) // 2)
        gained = np.where(self.order >= 0, np.take_along_axis(pairs, np.maximum(self.order, 0), axis=1), 0)
        return np.concatenate([[0], gained.sum(axis=0).cumsum()])


def key_block_order(tokens: int, *, block: int, causal: bool, seed: int) -> IntArray:
    """[query blocks, key blocks]: for every query block the key blocks in the order in which they are kept.

    The window first (its own block, the one before, and the one after unless causal), then the first block of the text,
    which everyone sees, then the rest at random. Causal rows end with −1 for each block of the future. A row depends on
    the seed, its place and how many blocks it may see, so a causal order is the beginning of any longer text's. Unlike
    BigBird's, the first block's own queries see no more than others do, so that a level costs every block the same.

    Args:
        tokens: Of the longest text, at least 1.
        block: Tokens of a block, at least 1; the last block may be shorter.
        causal: Whether a token sees no later ones.
        seed: Of the random part of the order.
    """
    if tokens < 1 or block < 1:
        raise ValueError(f"tokens and block must be at least 1, got {tokens} tokens in blocks of {block}")
    blocks = -(-tokens // block)
    order = np.full((blocks, blocks), -1, np.int64)
    for row in range(blocks):
        seen = row + 1 if causal else blocks
        first = [key for key in (row, row - 1, row + 1, 0) if 0 <= key < seen]
        window = list(dict.fromkeys(first))
        rest = np.setdiff1d(np.arange(seen), window)
        order[row, :seen] = [*window, *np.random.default_rng([seed, row]).permutation(rest)]
    return order


def install(attention: nn.Module, allowed: Tensor) -> RemovableHandle:
    """The Hugging Face attention module sees only what `allowed` [T, T] and its own mask both allow, until removed.

    Texts of at most T tokens; a shorter one uses the leading part, and a text that is generated with a cache the rows
    of its new tokens. Several masks on one module are combined. The network computes no less than before: this says
    what the outputs are, and experiments/block_sparse how fast they can be.

    Raises ValueError for a mask that shows a causal module the future, or hides a token from itself, and for modules
    that take no such mask.

    Args:
        attention: A Hugging Face attention module.
        allowed: [T, T] whether a query (row) may see a key (column).
    """
    return attention.register_forward_pre_hook(_narrowed(attention, allowed), with_kwargs=True)


def install_pattern(attention: nn.Module, pattern: Pattern, kept: int) -> RemovableHandle:
    """The same with a pattern's mask at a level, which is saved and loaded with the network.

    In a causal text of more than the pattern's tokens, queries see `kept` blocks of keys as well.

    Args:
        attention: A Hugging Face attention module.
        pattern: Which blocks of keys are kept first.
        kept: Blocks of keys that each block of queries sees, from 1 to all.

    Returns:
        A handle whose `remove` takes the mask away again.
    """
    most = getattr(_configured(attention).config, "max_position_embeddings", pattern.tokens)
    if not pattern.tokens <= most:
        raise ValueError(f"a pattern for {pattern.tokens} tokens is for more than the {most} positions of the network")
    hook = _narrowed(attention, KeyBlocks.of(pattern).allowed(kept))
    hook.pattern, hook.kept = pattern, kept
    return attention.register_forward_pre_hook(hook, with_kwargs=True)


def patterns_of(network: nn.Module) -> list[tuple[Pattern, int]]:
    """The patterns that are installed in a network and their levels; `module` is what each module is called in it.

    Raises ValueError for a mask that comes from no pattern.
    """
    patterns = []
    for name, module in network.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _Narrowed):
                if hook.pattern is None:
                    raise ValueError(f"{name} has a mask of no pattern, which cannot be described; remove it")
                patterns.append((replace(hook.pattern, module=name), hook.kept))
    return patterns


def is_causal(attention: nn.Module) -> bool:
    """Whether an attention module of transformers hides the future from every token."""
    return bool(getattr(_configured(attention), "is_causal", True))


def _configured(attention: nn.Module) -> Any:
    """The attention module, or the one inside it, that has the configuration."""
    names = _arguments(attention)
    configured = [module for module in attention.modules() if hasattr(module, "config")]
    if not {"hidden_states", "attention_mask"} <= set(names) or not configured:
        raise ValueError(
            f"{type(attention).__name__} is no attention module of transformers: it needs a config, and a forward of "
            f"hidden_states and attention_mask; its arguments are {list(names)}"
        )
    return configured[0]


def _arguments(attention: nn.Module) -> tuple[str, ...]:
    return tuple(inspect.signature(type(attention).forward).parameters)[1:]  # without self


def _narrowed(attention: nn.Module, allowed: Tensor) -> "_Narrowed":
    kind = _configured(attention).config._attn_implementation
    if kind not in IMPLEMENTATIONS:
        raise ValueError(
            f"{type(attention).__name__} runs attention {kind!r}, which takes no mask of single tokens; load the "
            f"model with attn_implementation set to one of {list(IMPLEMENTATIONS)}"
        )
    if allowed.dtype != torch.bool or allowed.ndim != 2 or allowed.shape[0] != allowed.shape[1]:
        raise ValueError(f"a mask is a bool tensor [T, T], got {allowed.dtype} {list(allowed.shape)}")
    if not allowed.diagonal().all():
        raise ValueError("the mask hides a token from itself, which may leave it with nothing to see")
    if is_causal(attention) and allowed.triu(1).any():
        raise ValueError(f"{type(attention).__name__} is causal, and the mask shows it the future; ask for causal=True")
    return _Narrowed(allowed, _arguments(attention), kind == "eager")


@dataclass(slots=True, eq=False)
class _Narrowed:
    """A hook that narrows the attention mask of a call; an object, so that a model with it can be sent to a process."""

    allowed: Tensor
    names: tuple[str, ...]
    additive: bool
    pattern: Pattern | None = None
    kept: int = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
        hidden, cache = arguments["hidden_states"], arguments.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length(getattr(module, "layer_idx", 0))
        end = past + hidden.shape[1]
        if end > len(self.allowed):
            self._grow(int(end))
        allowed = self.allowed[past:end, :end].to(hidden.device)
        arguments["attention_mask"] = self._both(allowed, arguments.get("attention_mask"), hidden.dtype)
        return (), arguments

    def _grow(self, tokens: int) -> None:
        """At least twice as long, as a text that is generated grows by one token at a time."""
        if self.pattern is None or not self.pattern.causal:
            raise ValueError(
                f"the text has {tokens} tokens, and the sparse attention is for {len(self.allowed)}; make its blocks "
                "for as many tokens as the longest text has"
            )
        longer = replace(self.pattern, tokens=max(tokens, 2 * len(self.allowed)))
        self.allowed = KeyBlocks.of(longer).allowed(self.kept)

    def _both(self, allowed: Tensor, own: Tensor | None, dtype: torch.dtype) -> Tensor:
        """[N or 1, heads or 1, queries, keys]: what both masks allow, in the form of the module's own."""
        if own is None and not self.additive:
            return allowed[None, None]
        if own is None:
            own = torch.zeros(1, 1, *allowed.shape, dtype=dtype, device=allowed.device)
        if own.ndim != 4 or own.shape[-2:] != allowed.shape:
            raise ValueError(
                f"the module's own mask is {list(own.shape)}, the text has [queries, keys] {list(allowed.shape)}; "
                "caches of a fixed size and masks of other shapes are not supported"
            )
        if own.dtype == torch.bool:
            return own & allowed
        return own.masked_fill(~allowed, torch.finfo(own.dtype).min)
