"""Texts shared out among data roles, and token windows for causal language models."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from autoprune.ranges import Count, Positive, check_fields
from autoprune.task.conversations import tokens_of
from autoprune.task.corpora import Documents, documents, kjv_is_installed
from autoprune.task.default_metrics import IGNORED
from autoprune.task.task import Role, Roles

ROLES = ("calibration", "search", "test", "train")  # training comes last, so that more of it moves nobody's samples
BETWEEN = "\n\n"  # what stands between two documents

Sample = TypeVar("Sample")
TextOrTexts = str | Sequence[str] | Mapping[str, Positive]  # of a role; with shares, or alike


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    pad_token_id: int | None

    def __call__(self, text: str | list[str], **options: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much text a task has."""

    tokens: Count
    """In a sample."""
    train: Count
    """Samples that recovery sees."""
    calibration: Count
    """Samples that repairs and criteria see."""
    search: Count
    """Samples that searches see."""
    test: Count
    """Samples that reports see."""
    held_out: Count
    """Samples of each text that only a final report reads."""

    def __post_init__(self) -> None:
        check_fields(self, "task.sizes")

    def changed(self, changes: Mapping[str, int] | None) -> "Sizes":
        """These sizes but for the named ones. Raises ValueError for a name that there isn't."""
        return replace(self, **_checked(changes or {}, self))


@dataclass(frozen=True, slots=True)
class Sources:
    """Which text each role is read from, as `corpora.documents` names it, and those that only a final report reads.

    Several may read one text: each gets samples of its own. A role may read several texts, alike or in given shares;
    their samples take turns, so that every part of the role has about these shares.

    >>> Sources(search={"docstrings": 3, "topics": 1}).texts("search")
    {'docstrings': 0.75, 'topics': 0.25}
    """

    train: TextOrTexts = "topics"
    """What recovery sees."""
    calibration: TextOrTexts = "topics"
    """What repairs and criteria see."""
    search: TextOrTexts = "docstrings"
    """What searches see."""
    test: TextOrTexts = "docstrings"
    """What reports see."""
    held_out: Sequence[str] = ("descriptions", "topics")
    """Texts that only a final report reads."""

    @classmethod
    def offline(cls) -> "Sources":
        """What is at hand without a network; networks are judged on the Bible's middle where that is installed.

        Its beginning is what a language model is most likely to know by heart.
        """
        if not kjv_is_installed():
            return cls()
        return cls(search="kjv:Job-Mal", test="kjv:Job-Mal", held_out=("kjv:1Sm-Est", "descriptions"))

    def texts(self, role: str) -> dict[str, float]:
        """Returns the role's texts, each with its share of the samples; the shares add up to 1.

        Args:
            role: One of ROLES.

        Raises:
            ValueError: It has no text, one twice, or a share that is not above 0.
        """
        given = getattr(self, role)
        listed = [given] if isinstance(given, str) else list(given)
        shares = [float(given[text]) if isinstance(given, Mapping) else 1.0 for text in listed]
        if not listed or len(set(listed)) < len(listed) or not all(math.isfinite(s) and s > 0 for s in shares):
            raise ValueError(
                f"task.sources.{role} is a text, a list of texts, each once, or texts with shares above 0, such as "
                f"{{topics: 3, docstrings: 1}}; got {given!r}"
            )
        return {text: share / sum(shares) for text, share in zip(listed, shares, strict=True)}

    def changed(self, changes: Mapping[str, TextOrTexts] | None) -> "Sources":
        """These texts but for the named roles. Raises ValueError for a role that there isn't."""
        return replace(self, **_checked(changes or {}, self))


@dataclass(frozen=True, slots=True, eq=False)
class CausalData:
    """Token windows of texts, or of texts with answers, and what of them is judged."""

    roles: Roles
    """Inputs [N, T], and as targets [N, P] the tokens that follow at `positions`. With answers: inputs ([N, T], the
    positions [N, P] that are judged of each), targets −100 where there are fewer than P."""
    positions: tuple[int, ...] | None
    """Of every window; None where each has its own."""
    held_out: Mapping[str, Tensor]
    """Windows [N, T + 1] by the name of their text; the last token of each is only a target."""
    judged: Mapping[str, Tensor]
    """Text → which tokens of its windows are judged, bool [N, T + 1]; only of texts with answers."""


def causal_data(tokenizer: Tokenizer, *, sources: Sources, sizes: Sizes, positions: int) -> CausalData:
    """Fixed windows that don't overlap, of T tokens and the one that follows; documents run on from one to the next.

    Args:
        tokenizer: Turns text into tokens.
        sources: The text of each role.
        sizes: Tokens per sample, and samples per role.
        positions: How many of each window are judged.

    Raises:
        ValueError: A text has too few tokens.
    """
    asked = judged_positions(sizes.tokens, positions)
    shares = share_out(sources, sizes, Windows(tokenizer, sizes.tokens + 1))
    answers = any(not all(judged) for share in shares.roles.values() for _, judged in share.samples)
    roles = {name: _role(share, asked, answers=answers) for name, share in shares.roles.items()}
    held_out = {text: torch.tensor([tokens for tokens, _ in s.samples]) for text, s in shares.held_out.items()}
    marks = {text: torch.tensor([judged for _, judged in s.samples]) for text, s in shares.held_out.items()}
    partly = {text: judged for text, judged in marks.items() if not judged.all()}
    return CausalData(Roles(**roles), None if answers else asked, held_out, partly)


def _role(share: "Share[tuple[list[int], list[bool]]]", asked: tuple[int, ...], *, answers: bool) -> Role:
    windows = torch.tensor([tokens for tokens, _ in share.samples])
    if not answers:
        return Role(windows[:, :-1].contiguous(), windows[:, [position + 1 for position in asked]], share.ids)
    positions = torch.tensor([own_positions(judged, asked) for _, judged in share.samples])
    spare = torch.arange(len(asked)) >= torch.tensor([len(set(row)) for row in positions.tolist()])[:, None]
    targets = windows.gather(1, positions + 1).masked_fill(spare, IGNORED)
    return Role((windows[:, :-1].contiguous(), positions), targets, share.ids)


def own_positions(judged: Sequence[bool], asked: tuple[int, ...]) -> list[int]:
    """Returns the positions of a window that are judged, as many as are asked for.

    Of a text those that are asked for. Of one with answers, those whose next token is of an answer: evenly spread where
    there are more; where there are fewer, all, and then the first ones again.

    Args:
        judged: Of every token of the window and the one behind it, whether it may be judged.
        asked: Positions of a text's windows.

    >>> own_positions([False, False, True, True, False], (2, 3))
    [1, 2]
    >>> own_positions([False, False, False, True, False], (2, 3))
    [2, 2]
    """
    if all(judged):
        return list(asked)
    own = [position for position, of_answer in enumerate(judged[1:]) if of_answer]
    if len(own) >= len(asked):
        return [own[i * len(own) // len(asked)] for i in range(len(asked))]
    return [own[i % len(own)] for i in range(len(asked))]


def judged_positions(tokens: int, number: int) -> tuple[int, ...]:
    """So many positions of a window, ascending and evenly spread over its second half, or more where that's short.

    Args:
        tokens: Tokens of a window.
        number: How many of its positions are judged.

    >>> judged_positions(128, 4)
    (79, 95, 111, 127)
    """
    if not 1 <= number <= tokens:
        raise ValueError(f"between 1 and all {tokens} positions of a window can be judged, got positions={number}")
    span = max(tokens - tokens // 2, number)
    return tuple((tokens - 1 - np.arange(number)[::-1] * span // number).tolist())


@dataclass(frozen=True, slots=True)
class Share(Generic[Sample]):
    """The samples that one reader is given."""

    samples: list[Sample]
    """In the order of the text."""
    ids: tuple[str, ...]
    """Of each, "text:number"."""


@dataclass(frozen=True, slots=True)
class Shares(Generic[Sample]):
    """Disjoint shares of texts."""

    roles: Mapping[str, Share[Sample]]
    """Role → its share."""
    held_out: Mapping[str, Share[Sample]]
    """Text → the share that is held out."""


class SampleCutter(Protocol[Sample]):
    """Makes samples of documents. size: how many `unit`s (tokens, words) go into one."""

    @property
    def unit(self) -> str: ...

    @property
    def size(self) -> int: ...

    def __call__(self, documents: Documents, wanted: int) -> tuple[list[Sample], int]:
        """The first so many samples, or all that there are; and the units that were read."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Cuts documents into windows of `size` tokens, each with a mark for every token that may be judged.

    Windows in which there is nothing to judge, such as the middle of a long prompt, are left out.
    """

    tokenizer: Tokenizer
    """Turns a text into tokens."""
    size: int
    """Tokens in a window."""
    unit: str = "tokens"
    """What `size` counts, for messages."""

    def __call__(self, documents: Documents, wanted: int) -> tuple[list[tuple[list[int], list[bool]]], int]:
        tokens, judged, read = list[int](), list[bool](), 0
        windows: list[tuple[list[int], list[bool]]] = []
        for document in documents:
            own_tokens, own_judged = tokens_of(document, self.tokenizer, between=BETWEEN)
            tokens, judged, read = tokens + own_tokens, judged + own_judged, read + len(own_tokens)
            while len(tokens) >= self.size and len(windows) < wanted:
                if any(judged[1 : self.size]):  # nothing comes before the first one
                    windows.append((tokens[: self.size], judged[: self.size]))
                tokens, judged = tokens[self.size :], judged[self.size :]
            if len(windows) >= wanted:
                break
        return windows, read


def share_out(sources: Sources, sizes: Sizes, cut: SampleCutter[Sample]) -> Shares[Sample]:
    """Samples for every role and held-out text: consecutive ones of a text for those who read the same.

    No document is read twice, whatever texts it stands in.

    Args:
        sources: The text of each role.
        sizes: Tokens per sample, and samples per role.
        cut: What makes samples of a text.

    Raises:
        ValueError: A text has too little.
    """
    held_out = [sources.held_out] if isinstance(sources.held_out, str) else list(dict.fromkeys(sources.held_out))
    parts = {role: _numbers(sources.texts(role), getattr(sizes, role)) for role in ROLES}
    readers = [(role, text, number) for role in ROLES[:-1] for text, number in parts[role].items()]
    readers += [(f"held_out {text}", text, sizes.held_out) for text in held_out]
    readers += [(ROLES[-1], text, number) for text, number in parts[ROLES[-1]].items()]

    shares: dict[tuple[str, str], Share[Sample]] = {}
    seen: set[bytes] = set()
    for text in dict.fromkeys(text for _, text, _ in readers):
        asked = {reader: number for reader, of, number in readers if of == text}
        samples = _samples(text, cut, asked, seen)
        first = 0
        for reader, number in asked.items():
            rows = range(first, first + number)
            shares[reader, text] = Share([samples[row] for row in rows], tuple(f"{text}:{row}" for row in rows))
            first += number
    return Shares(
        {role: _in_turns([shares[role, text] for text in parts[role]]) for role in ROLES},
        {text: shares[f"held_out {text}", text] for text in held_out},
    )


def _numbers(texts: Mapping[str, float], samples: int) -> dict[str, int]:
    """Text → how many of the samples are its own; what rounding leaves goes to the largest remainders."""
    exact = {text: share * samples for text, share in texts.items()}
    numbers = {text: int(number) for text, number in exact.items()}
    behind = sorted(texts, key=lambda text: numbers[text] - exact[text])
    for text in behind[: samples - sum(numbers.values())]:
        numbers[text] += 1
    return {text: number for text, number in numbers.items() if number}


def _in_turns(shares: Sequence[Share[Sample]]) -> Share[Sample]:
    """The samples of several texts, each text's evenly spread."""
    turns = sorted(
        ((row + 0.5) / len(share.samples), number, row)
        for number, share in enumerate(shares)
        for row in range(len(share.samples))
    )
    return Share(
        [shares[number].samples[row] for _, number, row in turns],
        tuple(shares[number].ids[row] for _, number, row in turns),
    )


def _samples(text: str, cut: SampleCutter[Sample], asked: Mapping[str, int], seen: set[bytes]) -> list[Sample]:
    wanted = sum(asked.values())
    samples, units = cut(_unseen(documents(text), seen), wanted)
    if len(samples) < wanted:
        raise ValueError(
            f"the text {text!r} has {units:,} {cut.unit}, which make {len(samples)} samples of {cut.size}; "
            f"{_listed(asked)} need {wanted}, that is {wanted * cut.size:,} {cut.unit}. Ask for fewer or shorter ones, "
            "e.g. 'task.sizes={tokens: 64, train: 100}', or read another text, e.g. 'task.sources={train: FILE}'"
        )
    return samples


def _unseen(documents: Documents, seen: set[bytes]) -> Documents:
    """Documents that no text before had; those that are read join `seen`."""
    before = frozenset(seen)
    for document in documents:
        digest = hashlib.blake2b(str(document).encode(), digest_size=16).digest()
        if digest not in before:
            seen.add(digest)
            yield document


def _listed(asked: Mapping[str, int]) -> str:
    return " and ".join(f"{reader} ({number})" for reader, number in asked.items())


def _checked(changes: Mapping[str, Any], defaults: Sizes | Sources) -> dict[str, Any]:
    names = [field.name for field in fields(defaults)]
    unknown = [name for name in changes if name not in names]
    if unknown:
        raise ValueError(f"task.{type(defaults).__name__.lower()} has no {unknown}; it has {names}")
    return dict(changes)
