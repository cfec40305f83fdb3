"""Plan → how its network judges: what a worker does, with everything it needs and nothing else."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol

from torch import nn

from autoprune.evaluation.judge import Judge
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.prefix import CachedPrefix
from autoprune.structure.axes import Kept


class Evaluator(Protocol):
    """Judges a plan on the proxy batches start … stop - 1, one Judged for each. It can be sent to another process."""

    divisible: bool
    """Batches can be judged apart from each other at no extra cost."""

    def judge(self, kept: Kept, start: int, stop: int) -> list[Judged]: ...


class SlicedEvaluator:
    """Judges views of an ordered network."""

    divisible = True

    def __init__(self, ordered: OrderedNetwork, judge: Judge, *, dense: Kept) -> None:
        self._ordered, self._judge, self.whole_metric = ordered, judge, judge.whole_metric
        self._prefix = CachedPrefix(ordered, dense, judge.batches, judge.forward)

    def judge(self, kept: Kept, start: int, stop: int) -> list[Judged]:
        network = self._ordered.at(kept)
        judged = []
        for batch in range(start, stop):
            # with its last batch, a metric of the whole role may ask for the outputs of others, which are not recalled
            last = self.whole_metric and batch + 1 == len(self._judge.batches)
            with nullcontext() if last else self._prefix.recalled(kept, batch):
                judged += self._judge.judge(network, batch, batch + 1, plan=kept)
        return judged


class TrainedEvaluator:
    """Judges the pruned network after a short training: the expensive truth that cheap scores stand for."""

    divisible = False

    def __init__(self, trained: Callable[[Kept], nn.Module], judge: Judge) -> None:
        self._trained, self._judge, self.whole_metric = trained, judge, judge.whole_metric

    def judge(self, kept: Kept, start: int, stop: int) -> list[Judged]:
        return self._judge.judge(self._trained(kept), start, stop, plan=kept)
