"""What kept units count as where a cost is not affine in them: pairs of tokens, for blocks of keys."""

from dataclasses import dataclass

import numpy as np

from autoprune.structure.block_sparse import KeyBlocks
from autoprune.structure.groups import IntArray, Pattern, Structure


@dataclass(frozen=True, slots=True, eq=False)
class UnitTables:
    """Some groups' kept units, looked up; those of all others stay as they are.

    >>> UnitTables(np.array([1]), np.array([[0, 3, 4]]))(np.array([7, 2]))
    array([7, 4])
    """

    groups: IntArray
    """[tables]: the indices of the groups."""
    values: IntArray
    """[tables, most units + 1]: never falling, the last one repeated."""

    def __call__(self, kept: IntArray) -> IntArray:
        """What plans count as: kept [..., groups] → [..., groups]."""
        counted = np.array(kept, np.int64)
        counted[..., self.groups] = self.values[np.arange(len(self.groups)), counted[..., self.groups]]
        return counted

    def of(self, group: int, levels: IntArray) -> IntArray:
        """What levels of one group count as.

        Args:
            group: The index of the group, with or without a table.
            levels: [levels] units of it.

        Returns:
            [levels]
        """
        for index in np.flatnonzero(self.groups == group):
            levels = self.values[index, levels]
        return levels


def pair_tables(structure: Structure) -> UnitTables | None:
    """The pairs of tokens that attentions compute at each level of their groups; None where no group has a pattern."""
    patterned = [(index, group) for index, group in enumerate(structure.groups) if group.patterns]
    if not patterned:
        return None
    tables = [attention_pairs(group.patterns[0]) for _, group in patterned]
    widest = max(map(len, tables))
    values = np.stack([np.pad(table, (0, widest - len(table)), "edge") for table in tables])
    return UnitTables(np.array([index for index, _ in patterned], np.int64), values)


def attention_pairs(pattern: Pattern) -> IntArray:
    """[units + 1]: the (query, key) pairs that one text takes when so many key blocks are kept, up to tokens².

    A dense attention counts as the square of its tokens, a causal one too, as everywhere (half of it is computed for
    nothing, or skipped by kernels that know). A level takes of the square the share of the pairs that it shows among
    those that all blocks show, rounded up to a whole pair, so that what a dense network costs does not depend on the
    kinds of its groups. Where nothing is causal, these are the very pairs of KeyBlocks.kept_pairs.
    """
    visible = KeyBlocks.of(pattern).kept_pairs
    square, most = pattern.tokens**2, int(visible[-1])
    common = int(np.gcd(square, most))
    return -(-visible * (square // common) // (most // common))
