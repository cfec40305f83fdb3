"""Bits of coded matrices under many plans at once, by the density and the bits that their groups keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from autoprune.coding.predicted_size import index_bits
from autoprune.cost.model import FloatArray
from autoprune.cost.probing import SizeFunction
from autoprune.structure.code_bits import RAW_BITS
from autoprune.structure.groups import IntArray, Structure

SHARES = (
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.7,
    0.85,
    1.0,
)  # of weights, at which entropies are measured


@dataclass(frozen=True, slots=True, eq=False)
class Entropies:
    """What was measured of matrices when shares of their weights are kept."""

    per_weight: FloatArray
    """[matrices, SHARES, choices]: bits of a coded value."""
    tables: FloatArray
    """[matrices, SHARES, choices]: bits of the values' table."""
    index_ratios: FloatArray
    """[matrices, SHARES]: bits of the index ÷ what they are where every choice of entries is as likely."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedMatrices:
    """Σ entries · entropy of a value + table + entropy of which entries are kept, for every matrix.

    Entries are a product of what groups keep; the entropy follows from the density of single weights and from the bits
    of a code, which are two groups' decisions, or nobody's.
    """

    scale: FloatArray
    """[matrices]: what the product is multiplied by."""
    factors: FloatArray
    """[matrices, factors, groups + 1]: affine in the kept units, the last column constant."""
    units: IntArray
    """[groups]"""
    density: IntArray
    """[matrices]: the group that says how many single weights stay; −1: all do."""
    bits: IntArray
    """[matrices]: the group that says how many bits a value has; −1: the last of the choices."""
    choice: IntArray
    """[RAW_BITS + 1]: bits → index of the choice."""
    entropies: Entropies
    """Of every matrix."""
    touched: tuple[IntArray, ...]
    """Of each group, the matrices that depend on it."""
    never_fall: bool = False
    """Whether no more weights and no more bits ever take less."""

    @classmethod
    def of(
        cls,
        entries: Sequence[SizeFunction],
        structure: Structure,
        *,
        density: Sequence[int],
        bits: Sequence[int],
        choices: Sequence[int],
        entropies: Entropies,
    ) -> Self:
        """Returns the matrices, each with its entries as a function of what groups keep.

        Args:
            entries: Of each matrix: how many entries it has, as a function of what groups keep.
            structure: The groups.
            density: [matrices] the group that says how many single weights stay; −1: all do.
            bits: [matrices] the group that says how many bits a value has; −1: the last of the choices.
            choices: Bits that a code may have, ascending.
            entropies: Of every matrix.
        """
        groups, most = len(structure.groups), max([1, *(len(size.tables) for size in entries)])
        one = (*[0] * groups, 1)
        factors = np.array(
            [[*size.tables, *[one] * (most - len(size.tables))] for size in entries], np.float64
        ).reshape(len(entries), most, groups + 1)
        of_density, of_bits = np.array(density, np.int64), np.array(bits, np.int64)
        touched = tuple(
            np.flatnonzero((factors[:, :, group] != 0).any(axis=1) | (of_density == group) | (of_bits == group))
            for group in range(groups)
        )
        matrices = cls(
            np.array([size.scale for size in entries], np.float64),
            factors,
            structure.units,
            of_density,
            of_bits,
            np.searchsorted(choices, np.arange(RAW_BITS + 1)).clip(max=len(choices) - 1),
            entropies,
            touched,
        )
        return replace(matrices, never_fall=matrices._rise())

    def __call__(self, kept: IntArray, rows: IntArray | slice = slice(None)) -> FloatArray:
        """Returns the bits of each of the matrices: kept [..., groups] → [..., rows].

        Args:
            kept: Units that each group keeps.
            rows: Which matrices.
        """
        factors = self.factors[rows]
        values = np.tensordot(kept, factors[..., :-1], (-1, -1)) + factors[..., -1]
        return self._bits(values, kept[..., self.density[rows]], kept[..., self.bits[rows]], rows)

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        """Returns the bits of all matrices if one group kept its one of `levels` instead: kept, levels [groups].

        Args:
            kept: Of a plan.
            levels: Of each group, another.
        """
        every = self(kept)
        group = np.repeat(np.arange(len(kept)), [len(rows) for rows in self.touched])
        rows = np.concatenate(self.touched)
        step = (levels - kept)[group]
        values = (np.tensordot(kept, self.factors[..., :-1], (-1, -1)) + self.factors[..., -1])[rows]
        values = values + self.factors[rows, :, group] * step[:, None]
        units = kept[self.density[rows]] + np.where(self.density[rows] == group, step, 0)
        bits = kept[self.bits[rows]] + np.where(self.bits[rows] == group, step, 0)
        change = self._bits(values, units, bits, rows) - every[rows]
        return np.asarray(every.sum() + np.bincount(group, change, minlength=len(kept)))

    def _rise(self) -> bool:
        if (self.factors < 0).any():
            return False
        widths = np.flatnonzero(np.diff(self.choice, prepend=-1))
        for row in range(len(self.scale)):
            units = np.arange(1, (self.units[self.density[row]] if self.density[row] >= 0 else 1) + 1)
            bits = widths if self.bits[row] >= 0 else widths[-1:]
            one = np.array([row])
            # As a share of the whole matrix, whose product with other groups' factors rises as they do.
            whole = self.scale[row] * np.prod(self.factors[row, :, :-1] @ self.units + self.factors[row, :, -1])
            share = units / units[-1]
            counts = (whole / self.scale[row] * share)[:, None, None, None] * np.ones((1, len(bits), 1, 1))
            grid = self._bits(
                counts, np.broadcast_to(units[:, None, None], (len(units), len(bits), 1)),
                np.broadcast_to(bits[None, :, None], (len(units), len(bits), 1)), one,
            )[..., 0]  # fmt: skip
            if (np.diff(grid, axis=0) < 0).any() or (np.diff(grid, axis=1) < 0).any():
                return False
        return True

    def _bits(self, values: FloatArray, units: IntArray, bits: IntArray, rows: IntArray | slice) -> FloatArray:
        """values [..., rows, factors], units and bits of the rows' groups [..., rows] → [..., rows]."""
        counts = self.scale[rows] * values.prod(axis=-1)
        density, of_bits = self.density[rows], self.bits[rows]
        share = np.where(density >= 0, units / self.units[density], 1.0)
        choice = self.choice[np.where(of_bits >= 0, bits, RAW_BITS)]
        above = np.searchsorted(SHARES, share).clip(1, len(SHARES) - 1)
        low, high = np.take(SHARES, above - 1), np.take(SHARES, above)
        part = ((share - low) / (high - low)).clip(0, 1)
        matrix = np.arange(len(self.scale))[rows]
        at = matrix, above, choice
        below = matrix, above - 1, choice
        measured = self.entropies
        per_weight = measured.per_weight[below] * (1 - part) + measured.per_weight[at] * part
        table = measured.tables[below] * (1 - part) + measured.tables[at] * part
        whole = counts / np.where(share > 0, share, 1)
        ratio = measured.index_ratios[below[:2]] * (1 - part) + measured.index_ratios[at[:2]] * part
        listed = ratio * index_bits(np.minimum(counts, whole), whole)
        return np.asarray(np.where(counts > 0, counts * per_weight + table + listed, 0.0))
