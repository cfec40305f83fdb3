"""Pairs of passages, of which one is to be found by the other: data roles for sentence encoders."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.task.corpora import Documents
from autoprune.task.task import Role, Roles
from autoprune.task.text import Share, Sizes, Sources, Tokenizer, share_out

WORDS_PER_TOKEN = 0.4  # so that few passages have to be cut: words of English prose are 1.3 tokens, of manuals 2


@dataclass(frozen=True, slots=True, eq=False)
class PairData:
    """Passages and their neighbours."""

    roles: Roles
    """Inputs [N, T], and as targets [N] their neighbours' places in `passages`."""
    passages: Tensor
    """What every role searches in [M, T]; each is the neighbour of one sample."""
    pad: int
    """The token that fills windows up."""
    held_out: Mapping[str, Role]
    """Text → a role of its samples."""


def pair_data(tokenizer: Tokenizer, *, sources: Sources, sizes: Sizes) -> PairData:
    """Documents cut into runs of words, of each of which the beginning has to find the end, by half of its words.

    Args:
        tokenizer: Turns text into tokens.
        sources: The text of each role.
        sizes: Tokens per sample, and samples per role.

    Raises:
        ValueError: A text has too few words, or the tokenizer no token to fill samples up with.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no padding token, which samples of different lengths need; give it one")
    shares = share_out(sources, sizes, Pairs(3 * max(1, int(sizes.tokens * WORDS_PER_TOKEN / 2))))
    passages: list[Tensor] = []

    def tokens(texts: list[str]) -> Tensor:
        rows = tokenizer(texts, padding="max_length", truncation=True, max_length=sizes.tokens)
        return torch.tensor(rows["input_ids"])

    def role(share: Share[tuple[str, str]]) -> Role:
        first = sum(map(len, passages))
        passages.append(tokens([random_neighbour for _, random_neighbour in share.samples]))
        inputs = tokens([passage for passage, _ in share.samples])
        return Role(inputs, torch.arange(first, first + len(inputs)), share.ids)

    roles = {name: role(share) for name, share in shares.roles.items()}
    held_out = {text: role(share) for text, share in shares.held_out.items()}
    return PairData(Roles(**roles), torch.cat(passages), tokenizer.pad_token_id, held_out)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Cuts each document into runs of `size` words: two thirds are a passage, the last two thirds its neighbour."""

    size: int
    """Words in a run."""
    unit: str = "words"
    """What `size` counts, for messages."""

    def __call__(self, documents: Documents, wanted: int) -> tuple[list[tuple[str, str]], int]:
        pairs: list[tuple[str, str]] = []
        read, third = 0, self.size // 3
        for document in documents:
            words = str(document).split()
            read += len(words)
            for start in range(0, len(words) - self.size + 1, self.size):
                run = words[start : start + self.size]
                pairs.append((" ".join(run[: 2 * third]), " ".join(run[third:])))
            if len(pairs) >= wanted:
                break
        return pairs[:wanted], read
