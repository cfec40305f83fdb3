"""Which units of a network depend on which, found by experiment, without a rule for any operator.

The network runs once on an example, every layer stood in for (`stand_ins.py`). The derivative of every column that is
read by every entry that is written is looked at by reverse differentiation, which runs through one segment only and
treats all that is written there at once:

- A reader's columns are weighted by 1 and by their number; the two gradients of an entry that is read in one column
  differ by that number. A third weighting by random numbers says which entries are read in several columns.
- For those, columns and entries are followed back and forth until they close: a head of an attention, or all channels
  that a map is multiplied into.

Parameters that belong to none of these layers (position embeddings, LayerScale) are found in the same way: all columns
are weighted by the number of their unit.
"""

import time
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from autoprune.structure.groups import IntArray
from autoprune.structure.stand_ins import NO_LAYER, REACHES_ALL, HandedOn, SegmentedRun, Tap
from autoprune.structure.weighted_gradients import (
    DIGIT,
    WeightedGradients,
    as_real,
    indices_of,
    is_alive,
    regular_blocks,
)

SLACK = 100.0  # times more, for units that are read in one of few blocks
FEW = 0.2  # of a tensor's entries: so many may only have happened to cancel, and are looked at again
INPUT, OUTPUT_NODE = "<input>", "<output>"

Progress = Callable[[int, int], None]  # (done, of)


class Laboratory:
    """What can be asked of a run with stand-ins by differentiating its segments."""

    def __init__(self, run: SegmentedRun, *, deadline: float, progress: Progress | None) -> None:
        self.free, self.normalised = run.free, run.normalised
        self.couplings = run.couplings
        self._run, self._deadline, self._progress = run, deadline, progress

    def follow(self) -> None:
        """Finds out who reads what, for all readers."""
        for done, tap in enumerate(self._run.reads):
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"after {done} of {len(self._run.reads)} layers")
            if self._progress is not None:
                self._progress(done, len(self._run.reads))
            self._follow(tap)
        if self._progress is not None:
            self._progress(len(self._run.reads), len(self._run.reads))
        leaves = [tap.tensor for tap in self._run.written]
        for output in self._run.outputs:
            for tap, gradient in zip(self._run.written, self._gradients([output], leaves), strict=True):
                if gradient is not None:
                    nodes = tap.nodes[indices_of(is_alive(gradient), tap.dim)]
                    self.couplings.pinned |= dict.fromkeys(nodes.tolist(), OUTPUT_NODE)
                    self.couplings.read.update(nodes.tolist())
        self._follow_dropped()

    def _follow_dropped(self) -> None:
        """Finds out what meets units that nobody reads: a sum that is computed and dropped has to fit all the same."""
        for tap in self._run.written:
            for met in self._run.joined:
                dropped = set(tap.nodes.tolist()) - self.couplings.read
                if not dropped or not _differ_along(tap.dim, tap.tensor, met):
                    continue
                (gradient,) = self._gradients([met], [tap.tensor])
                if gradient is None or dropped.isdisjoint(tap.nodes[indices_of(is_alive(gradient), tap.dim)].tolist()):
                    continue
                places = tap.nodes if met.shape == tap.tensor.shape else self.couplings.nodes.more(met.shape[tap.dim])
                self._follow(Tap(tap.layer, met, tap.dim, places))

    def _follow(self, tap: Tap) -> None:
        sources = [source.tensor for source in self._run.written] + self._run.inputs
        several: list[tuple[Tap, Tensor]] = []
        seen: list[tuple[Tap, IntArray, IntArray, Tensor | None]] = []
        columns = torch.arange(tap.tensor.shape[tap.dim])
        taps: list[Tap | None] = [*self._run.written, *[None] * len(self._run.inputs)]
        passing = {id(source) for units in tap.handed_on for source in units.sources}
        for source, weighted in zip(taps, self._weighted([tap], [columns], sources), strict=True):
            if weighted is None or id(source) in passing:
                continue
            if source is None:
                column, exact = weighted.decoded()
                reached = torch.unique(column[exact]).cpu().numpy()
                self.couplings.pinned |= dict.fromkeys(tap.nodes[reached].tolist(), INPUT)
                continue
            units, read, rest = weighted.pairs(source.dim)
            if rest is not None and int(rest.sum()) < FEW * rest.numel():
                (again,) = self._weighted([tap], [columns], [source.tensor])
                if again is not None:
                    more, more_read, left = again.pairs(source.dim)
                    units, read = np.append(units, more), np.append(read, more_read)
                    rest = None if left is None else rest & left
            seen.append((source, units, read, rest if rest is not None and bool(rest.any()) else None))
        single = {id(s.tensor) for s, units, _, rest in seen if rest is None and len(set(units.tolist())) == len(units)}
        for source, units, read, rest in seen:
            self.couplings.read.update(source.nodes[units].tolist())
            if id(source.tensor) in single and len(set(units.tolist())) < len(units):
                why = REACHES_ALL.format(tap.layer or NO_LAYER)  # what is read are units along another dimension
                self.couplings.pinned = dict.fromkeys(source.nodes[units].tolist(), why) | self.couplings.pinned
                continue
            self.couplings.connect(source.nodes[units], tap.nodes[read])
            if len(set(read.tolist())) < len(set(units.tolist())) and self._run.normalises(tap.layer):
                self.couplings.folded.add(tap.layer)
            if rest is not None:
                several.append((source, rest))
        if several:
            self._close(tap, several)

    def single_units(self, tensor: Tensor, dim: int) -> list[tuple[IntArray, IntArray]] | None:
        """For every layer that a tensor is computed from: pairs of a node, and the one place along `dim` it is read in.

        None where several units of a layer are read in one place, or one in several, or none anywhere.

        Args:
            tensor: Of the run's graph of derivatives.
            dim: A dimension of it.
        """
        tap = Tap("", as_real(tensor), dim, np.arange(tensor.shape[dim]))
        sources = [source.tensor for source in self._run.written]
        pairs = []
        for source, weighted in zip(
            self._run.written, self._weighted([tap], [torch.arange(tensor.shape[dim])], sources), strict=True
        ):
            if weighted is None or not is_alive(weighted.one).any():
                continue
            units, read, rest = weighted.pairs(source.dim)
            if rest is not None or len(set(units.tolist())) < len(units) or len(set(read.tolist())) < len(read):
                return None
            pairs.append((source.nodes[units], read))
        return pairs or None

    def handed_on(self, tensor: Tensor, dim: int) -> HandedOn | None:
        """The units that lie along a dimension of a tensor, one of each layer at a place; None where a place has none.

        Args:
            tensor: Of the run's graph of derivatives.
            dim: A dimension of it.
        """
        places = np.arange(tensor.shape[dim])
        tap = Tap("", as_real(tensor), dim, places)
        nodes, sources = np.full(len(places), -1), []
        for source, weighted in zip(
            self._run.written,
            self._weighted([tap], [torch.from_numpy(places)], [source.tensor for source in self._run.written]),
            strict=True,
        ):
            if weighted is None or not is_alive(weighted.one).any():
                continue
            units, at, rest = weighted.pairs(source.dim)
            if rest is None and len(set(units.tolist())) == len(units) == len(set(at.tolist())):
                taken = nodes[at] >= 0
                self.couplings.connect(nodes[at[taken]], source.nodes[units[taken]])
                nodes[at] = source.nodes[units]
                sources.append(source)
        return HandedOn(dim, nodes, tuple(sources)) if nodes.min() >= 0 else None

    def _weighted(
        self, taps: Sequence[Tap], numbers: Sequence[Tensor], sources: Sequence[Tensor]
    ) -> list["WeightedGradients | None"]:
        """The sources' gradients where the taps' columns are weighted by their numbers; None: nothing is read."""
        size = 1 + max((int(own.max()) for own in numbers if len(own)), default=0)
        signatures = torch.rand(2, size, generator=self._run.random) + 0.5
        noise = [self._noise(tap.tensor) for tap in taps]
        weights = [
            [torch.ones(len(own)), own % DIGIT + 1.0, own // DIGIT + 1.0, *signatures[:, own]] for own in numbers
        ]
        ports = [tap.tensor for tap in taps]
        gradients = [
            self._gradients(ports, sources, [n * _along(t, w[k]) for t, n, w in zip(taps, noise, weights, strict=True)])
            for k in range(5)
        ]
        return [
            None if own[0] is None else WeightedGradients([g for g in own if g is not None], signatures)
            for own in zip(*gradients, strict=True)
        ]

    def _close(self, tap: Tap, several: list[tuple[Tap, Tensor]]) -> None:
        """Finds the sets of columns that are read together by entries that are read in several columns."""
        leaves, masks = [source.tensor for source, _ in several], [mask for _, mask in several]
        weights, noise = torch.ones_like(tap.tensor).requires_grad_(), self._noise(tap.tensor)
        graph: Sequence[Tensor | None] = torch.autograd.grad(
            tap.tensor, leaves, weights, create_graph=True, retain_graph=True, allow_unused=True
        )

        def columns_of(entries: list[Tensor]) -> Tensor:
            chosen = [
                (g, m) for g, m in zip(graph, entries, strict=True) if g is not None and g.requires_grad and m.any()
            ]
            if not chosen:
                return torch.zeros(tap.tensor.shape[tap.dim], dtype=torch.bool)
            (reached,) = torch.autograd.grad(
                [g for g, _ in chosen], weights, [self._noise(m) * m for _, m in chosen], retain_graph=True,
                allow_unused=True,
            )  # fmt: skip
            columns = torch.zeros(tap.tensor.shape[tap.dim], dtype=torch.bool)
            if reached is not None:
                columns[indices_of(is_alive(reached), tap.dim)] = True
            return columns

        def entries_of(columns: Tensor) -> list[Tensor]:
            gradients = self._gradients([tap.tensor], leaves, [noise * _along(tap, columns.float())])
            return [
                mask & is_alive(g) if g is not None else torch.zeros_like(mask)
                for g, mask in zip(gradients, masks, strict=True)
            ]

        def note(columns: Tensor, units: list[IntArray]) -> None:
            written = np.unique(np.concatenate([s.nodes[own] for (s, _), own in zip(several, units, strict=True)]))
            if not len(written):
                return  # what was seen to be read together was rounding
            self.couplings.hubs.append((written, tap.nodes[columns.cpu().numpy()]))
            self.couplings.read.update(written.tolist())

        left = columns_of(masks)
        guessed = False
        while left.any():
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"while the units that {tap.layer} reads together were looked for")
            closed = torch.zeros_like(left)
            closed[left.nonzero()[0]] = True
            while True:
                entries = entries_of(closed)
                grown = closed | columns_of(entries)
                if bool((grown == closed).all()):
                    break
                closed = grown
            if bool(closed.all()) and self._beside_shared(tap, several, note):
                return
            blocks = None if guessed else regular_blocks(closed)
            guessed = True
            if blocks is not None and self._in_blocks(tap, several, blocks, left, note):
                return
            left &= ~closed
            note(closed, [indices_of(m, s.dim) for (s, _), m in zip(several, entries, strict=True)])

    def _in_blocks(
        self,
        tap: Tap,
        several: list[tuple[Tap, Tensor]],
        blocks: Tensor,
        left: Tensor,
        note: Callable[[Tensor, list[IntArray]], None],
    ) -> bool:
        """Whether every unit is read in one block of columns only (the heads of an attention); if so, notes them."""
        numbers = []
        for (source, _), weighted in zip(
            several, self._weighted([tap], [blocks], [source.tensor for source, _ in several]), strict=True
        ):
            if weighted is None:
                return False
            units, block, rest = weighted.pairs(source.dim, slack=SLACK)
            if rest is not None:
                return False
            numbers.append((units, block))
        for block in torch.unique(blocks[left]).tolist():
            note((blocks == block) & left, [units[own == block] for units, own in numbers])
        return True

    def _beside_shared(
        self, tap: Tap, several: list[tuple[Tap, Tensor]], note: Callable[[Tensor, list[IntArray]], None]
    ) -> bool:
        """Whether all columns fall apart into blocks but for units that every block reads; if so, notes the blocks.

        Queries of several heads that share their keys and values are such: heads can go, what they share stays.
        """
        size = len(tap.nodes)
        largest = [size // p for p in range(2, size) if size % p == 0 and all(p % q for q in range(2, p))]
        if not any(self._in_one_block(tap, several, part) for part in largest):
            return False  # units of one small block would be units of a larger one
        tried = [self._in_one_block(tap, several, part) for part in range(2, size) if size % part == 0]
        blocks = [each for each in tried if each is not None]
        if not blocks:  # the first look was a coincidence of its random weights
            return False
        each, chosen = max(blocks, key=lambda own: (sum(len(units) for units, _ in own[1]), -own[0]))
        for block in range(size // each):
            columns = torch.arange(size) // each == block
            note(columns, [units[own == block] for units, own in chosen])
        why = f"{tap.layer} reads it with units of several groups, which can go without it"
        for (source, mask), (units, _) in zip(several, chosen, strict=True):
            shared = np.setdiff1d(indices_of(mask, source.dim), units)
            self.couplings.pinned |= {n: why for n in source.nodes[shared].tolist() if n not in self.couplings.pinned}
            self.couplings.read.update(source.nodes[shared].tolist())
        return True

    def _in_one_block(
        self, tap: Tap, several: list[tuple[Tap, Tensor]], each: int
    ) -> tuple[int, list[tuple[IntArray, IntArray]]] | None:
        """Of every source the units that one block of so many columns reads, each with its block.

        None where a block reads no unit that others do not read, or another number of them than the others.
        """
        blocks = torch.arange(len(tap.nodes)) // each
        chosen = []
        for (source, _), weighted in zip(
            several, self._weighted([tap], [blocks], [source.tensor for source, _ in several]), strict=True
        ):
            units, own, _ = (
                (np.zeros(0, np.int64), np.zeros(0, np.int64), None)
                if weighted is None
                else weighted.pairs(source.dim, slack=SLACK)
            )
            once = np.isin(units, np.flatnonzero(np.bincount(units) == 1))
            chosen.append((units[once], own[once]))
        counts = np.bincount(np.concatenate([own for _, own in chosen]), minlength=int(blocks[-1]) + 1)
        return (each, chosen) if counts.min() == counts.max() > 0 else None

    def labels(
        self, tensors: Sequence[Tensor], label: IntArray, going: Collection[int]
    ) -> list[tuple[IntArray, Tensor] | None]:
        """For tensors of the run: which label each of their entries is read by alone, and whether it is read.

        Args:
            tensors: Of the run's graph of derivatives.
            label: [nodes] of each node that is read, at least 0.
            going: Labels of units that may go; of readers of others, the units count that pass by them, where any do.

        Returns:
            For each tensor its labels (−1 where several read an entry, or none) and whether each entry is read at all;
            None where nothing of it is.
        """
        reads = [
            Tap(tap.layer, tap.tensor, tap.handed_on[0].dim, tap.handed_on[0].nodes)
            if tap.handed_on and not np.isin(label[tap.nodes], list(going)).any()
            else tap
            for tap in self._run.reads
        ]
        numbers = [torch.from_numpy(label[tap.nodes]) for tap in reads]
        labels: list[tuple[IntArray, Tensor] | None] = []
        for weighted in self._weighted(reads, numbers, tensors):
            if weighted is None or not (alive := is_alive(weighted.one)).any():
                labels.append(None)
                continue
            number, exact = weighted.decoded()
            labels.append((torch.where(exact, number, -1).cpu().numpy(), alive))
        return labels

    def _gradients(
        self, outputs: Sequence[Tensor], sources: Sequence[Tensor], weights: Sequence[Tensor] | None = None
    ) -> list[Tensor | None]:
        weights = [self._noise(output) for output in outputs] if weights is None else weights
        if not outputs or not sources:
            return [None] * len(sources)
        return list(torch.autograd.grad(outputs, sources, weights, retain_graph=True, allow_unused=True))

    def _noise(self, like: Tensor) -> Tensor:
        return (torch.rand(like.shape, generator=self._run.random) + 0.5).to(like.device)


def _differ_along(dim: int, first: Tensor, second: Tensor) -> bool:
    """Whether all other dimensions of the two are as long."""
    return first.ndim == second.ndim and all(
        first.shape[other] == second.shape[other] for other in range(first.ndim) if other != dim
    )


def _along(tap: Tap, weights: Tensor) -> Tensor:
    """Weights [size of the tap's dimension] for all of its tensor."""
    shape = [-1 if dim == tap.dim else 1 for dim in range(tap.tensor.ndim)]
    return weights.to(tap.tensor.device, tap.tensor.dtype).view(shape).expand(tap.tensor.shape)
