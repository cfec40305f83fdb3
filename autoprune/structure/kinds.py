"""The kinds of groups that `structure.prune` may list for a transformer, and which of them go together."""

import re

KINDS = ("heads", "queries", "keys", "neurons", "experts", "attention", "ffn", "blocks", "weights")
DEFAULT_KINDS = ("heads", "neurons")
N_M = re.compile(r"([1-9][0-9]*):([1-9][0-9]*)")  # such as 2:4
KEYS = re.compile(r"keys(?::([1-9][0-9]*))?")  # with how many tokens are in a block of keys, such as keys:16
KEY_BLOCK = 32  # tokens, where nobody says


def check_kinds(prune: tuple[str, ...]) -> None:
    """Raises ValueError for kinds that do not exist, or that decide about one thing in ways that do not combine."""
    unknown = [kind for kind in prune if kind not in KINDS and not N_M.fullmatch(kind) and not KEYS.fullmatch(kind)]
    if unknown or not prune:
        raise ValueError(
            f"structure.prune names {unknown}; the kinds are {list(KINDS)}, keys:BLOCK, such as keys:16, and N:M, such "
            "as 2:4"
        )
    keys = [kind for kind in prune if KEYS.fullmatch(kind)]
    if len(keys) > 1:
        raise ValueError(f"structure.prune={list(prune)} decides twice about the same keys; name one of {keys}")
    single = [kind for kind in prune if kind == "weights" or N_M.fullmatch(kind)]
    for kind in single:
        if N_M.fullmatch(kind):
            n_m(kind)
    if len(set(prune)) < len(prune) or len(single) > 1:
        raise ValueError(f"structure.prune={list(prune)} decides twice about the same weights; name one of them")
    if single and {"heads", "queries", "neurons", "experts"} & set(prune):
        raise ValueError(
            f"structure.prune={list(prune)}: single weights of a matrix that gets narrower as well would be compared "
            "with some that are gone; combine them with attention, ffn or blocks, or prune in two runs"
        )
    if "blocks" in prune and {"attention", "ffn"} & set(prune):
        raise ValueError(f"structure.prune={list(prune)}: a block is its attention and its ffn; name blocks or those")
    mixing = [kind for kind in prune if kind in ("heads", "queries", "attention", "blocks") or kind in keys]
    if len(mixing) > 2:
        raise ValueError(f"structure.prune={list(prune)}: three decisions about one layer; leave out one of {mixing}")


def n_m(kind: str) -> tuple[int, int]:
    """How many weights of how many neighbours an N:M kind keeps. Raises ValueError where it keeps all."""
    kept, size = (int(part) for part in kind.split(":"))
    if not kept < size:
        raise ValueError(f"structure.prune={kind} must keep fewer weights than it compares, as 2:4 does")
    return kept, size
