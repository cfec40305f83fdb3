"""An evaluator that holds tensors."""

import torch

from autoprune.evaluation.outcome import Judged
from tests.evaluation.evaluators import expected


class Tensors:
    """Writes its process's thread count into a tensor, at the place that the plan names."""

    def __init__(self, elements: int) -> None:
        self.whole = torch.zeros(elements)
        self.view = self.whole[1:]
        self.parameter = torch.nn.Parameter(torch.ones(3))
        self.empty = torch.zeros(0)
        with torch.inference_mode():
            self.inferred = torch.arange(6).reshape(2, 3).t()

    def judge(self, kept: tuple[int, ...], start: int, stop: int) -> list[Judged]:
        assert self.inferred.tolist() == [[0, 3], [1, 4], [2, 5]]
        self.view[kept[0]] = torch.get_num_threads()
        with torch.no_grad():
            self.parameter += 1
        return [expected(kept, batch) for batch in range(start, stop)]
