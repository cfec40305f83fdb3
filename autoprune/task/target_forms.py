"""In which form targets are written, where that tells what they are, and how those of classes have to be written."""

import torch
from torch import Tensor


def has_negative_answers(targets: Tensor) -> bool:
    """Whether targets are −1 and 1, among which 0 may be what has no answer.

    Args:
        targets: What outputs are compared with.
    """
    signs = torch.tensor([-1, 0, 1], device=targets.device)
    return bool(torch.isin(targets, signs).all()) and bool((targets == -1).any()) and bool((targets == 1).any())


def are_numbers(targets: Tensor) -> bool:
    """Whether targets are numbers that are not all whole, so neither classes nor answers.

    Args:
        targets: What outputs are compared with; NaN is where there is none.
    """
    return targets.is_floating_point() and bool((targets.nan_to_num() != targets.nan_to_num().round()).any())


def form_hint(targets: Tensor | None, outputs: Tensor) -> str:
    """How targets that are nearly those of classes or of answers are written so that they are understood; or nothing.

    Args:
        targets: What outputs are compared with; None where there is nothing.
        outputs: Of a few samples.
    """
    if targets is None or not len(targets):
        return ""
    if has_negative_answers(targets):
        return " (yes-or-no answers are 0 and 1, as (targets > 0).float() has them; numbers are kind='regression')"
    labels = outputs.ndim > 1 and not are_numbers(targets)
    if not labels or targets.numel() // len(targets) * outputs.shape[1] != outputs[0].numel():
        return ""
    ways = ["squeeze(1)"] if targets.shape[1:2] == (1,) else []
    ways += ["long()"] if targets.is_floating_point() else []
    shape = ", ".join(["samples", *map(str, outputs.shape[2:])])
    how = f"the shape [{shape}] and whole numbers"
    return f" (labels of classes have {how}, as targets.{'.'.join(ways)} has them)" if ways else ""
