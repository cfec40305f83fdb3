import functools
import operator
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn

from autoprune.identity import identity_of
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task.task import accuracy
from tests.language_models import TINY
from tests.models import PRUNABLE


def written(source: str, name: str = "metric") -> Callable[..., Any]:
    """A function that somebody wrote into a module of theirs."""
    space: dict[str, Any] = {"__name__": "theirs", "torch": torch, "nn": nn}
    exec(source, space)
    function: Callable[..., Any] = space[name]
    return function


def test_equal_content_is_equal() -> None:
    for name, network in PRUNABLE.items():
        assert identity_of(network.model()) == identity_of(network.model()), name
        assert identity_of(network.structure()) == identity_of(network.structure())
    assert len({identity_of(network.model()) for network in PRUNABLE.values()}) == len(PRUNABLE)
    assert len({identity_of(network.structure()) for network in PRUNABLE.values()}) == len(PRUNABLE)
    assert identity_of({"a": torch.arange(3)}) == identity_of({"a": torch.arange(3)})
    assert identity_of(torch.arange(6).view(2, 3).t()) == identity_of(torch.arange(6).view(2, 3).t().contiguous())


def test_a_changed_weight_or_statistic_is_another_network() -> None:
    model = PRUNABLE["residual"].model()
    seen = {identity_of(model)}
    for key, tensor in model.state_dict().items():
        tensor.view(-1)[-1] += 1
        seen.add(identity_of(model))
        assert len(seen) > 1, key
    assert len(seen) == len(model.state_dict()) + 1


def test_key_blocks_are_part_of_what_a_network_and_its_groups_are() -> None:
    task = TINY["llama"]()
    structures = [find_structure(task.model, task.example_input, prune=(kind,)) for kind in ("keys:4", "keys:5")]
    assert [structure.names for structure in structures] == [structures[0].names] * 2
    assert [structure.units.tolist() for structure in structures] == [[4, 4, 4]] * 2
    assert identity_of(structures[0]) != identity_of(structures[1])
    plans = [[4, 4, 4], [3, 4, 4], [4, 3, 4], [2, 4, 4]]
    networks = [shrink(task.model, structures[0], structures[0].plan(np.array(kept)), {}) for kept in plans]
    assert len({identity_of(network) for network in networks}) == len(plans)
    assert identity_of(networks[0]) == identity_of(task.model)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(4), torch.zeros(2, 2)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int32)),
        (np.zeros(4), np.zeros((2, 2))),
        (np.array([1, 2]), np.array([2, 1])),
        ({"a": "bc"}, {"ab": "c"}),
        ([1, [2]], [[1], 2]),
        (["ab"], ["a", "b"]),
        (0.1, 0.2),
        (None, "None"),
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
        (PRUNABLE["prelu"].model(), nn.Sequential(*PRUNABLE["prelu"].model(), nn.Identity())),
        (functools.partial(accuracy, targets=1), functools.partial(accuracy, targets=2)),
        (functools.partial(max, 1), functools.partial(min, 1)),
    ],
)
def test_different_things_are_different(one: Any, other: Any) -> None:
    assert identity_of(one) != identity_of(other)
    assert identity_of(one) == identity_of(one)


def test_other_levels_are_another_structure() -> None:
    network = PRUNABLE["residual"]
    structures = [find_structure(network.model(), network.inputs(), round_to=n) for n in (1, 2)]
    assert identity_of(structures[0]) != identity_of(structures[1])


METRIC = "def metric(outputs, targets):\n    return (outputs.argmax(1) == targets).float().mean() * 2\n"
EDITS = {
    "a constant": METRIC.replace("2", "3"),
    "a method": METRIC.replace("argmax", "argmin"),
    "an operator": METRIC.replace("==", "!="),
    "a default": METRIC.replace("targets):", "targets, k=5):"),
    "a function inside": METRIC.replace("outputs.argmax(1)", "(lambda x: x.argmax(0))(outputs)"),
}


def test_an_edited_function_is_another_function() -> None:
    assert identity_of(written(METRIC)) == identity_of(written(METRIC))
    assert identity_of(written(METRIC)) == identity_of(written("# a comment\n\n" + METRIC))
    edited = {what: identity_of(written(source)) for what, source in EDITS.items()}
    edited["another function inside"] = identity_of(written(EDITS["a function inside"].replace("(0)", "(1)")))
    edited["another default"] = identity_of(written(EDITS["a default"].replace("k=5", "k=6")))
    assert len({identity_of(written(METRIC)), *edited.values()}) == 1 + len(edited), edited


def top(k: int) -> Callable[[Any, Any], float]:
    return lambda outputs, targets: float(outputs.topk(k).indices.eq(targets[:, None]).any(1).float().mean())


def test_a_function_is_also_what_it_holds() -> None:
    assert identity_of(top(1)) == identity_of(top(1)) != identity_of(top(5))


@dataclass(frozen=True)
class Within:
    tolerance: float

    def share(self, outputs: Any, targets: Any) -> float:
        return float(((outputs - targets).abs() < self.tolerance).float().mean())


def test_a_method_is_also_its_object() -> None:
    assert identity_of(Within(0.1).share) == identity_of(Within(0.1).share) != identity_of(Within(0.2).share)


FORWARD = "class Net(nn.Linear):\n    def forward(self, x):\n        return torch.relu(super().forward(x))\n"


def test_an_edited_forward_pass_is_another_network() -> None:
    weights = nn.Linear(3, 2).state_dict()
    networks = [written(source, "Net")(3, 2) for source in (FORWARD, FORWARD, FORWARD.replace("relu", "tanh"))]
    for network in networks:
        network.load_state_dict(weights)
    first, same, other = (identity_of(nn.Sequential(network)) for network in networks)
    assert first == same != other


class Weighted:
    """A metric with state, as people write them."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, outputs: Any, targets: Any) -> float:
        return self.weight * float(roc_auc_score(targets, outputs))


def test_any_object_that_can_be_sent_elsewhere_is_known_by_its_content() -> None:
    assert identity_of(Weighted(1.0)) == identity_of(Weighted(1.0)) != identity_of(Weighted(2.0))
    assert identity_of([Weighted(1.0)]) == identity_of([Weighted(1.0)])
    assert identity_of(functools.partial(max, key=Weighted(1.0))) == identity_of(
        functools.partial(max, key=Weighted(1.0))
    )
    assert (
        identity_of(operator.itemgetter(1))
        == identity_of(operator.itemgetter(1))
        != identity_of(operator.itemgetter(2))
    )


def test_a_library_function_is_its_name_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (roc_auc_score, functools.partial(f1_score, zero_division=0), nn.functional.cosine_similarity):
        assert identity_of(function) == identity_of(function)
    assert len({identity_of(function) for function in (roc_auc_score, f1_score)}) == 2
    before = identity_of(roc_auc_score)
    monkeypatch.setattr("sklearn.__version__", "0.0")
    assert identity_of(roc_auc_score) != before


def test_an_edited_helper_is_another_metric() -> None:
    source = "def helper(x):\n    return x + 1\n\ndef metric(o, t):\n    return helper(o)\n"
    assert identity_of(written(source)) == identity_of(written(source))
    assert identity_of(written(source)) != identity_of(written(source.replace("x + 1", "x + 2")))


def test_a_function_may_call_itself() -> None:
    recursive = written("def metric(o, t):\n    return metric(o, t - 1) if t else o\n")
    assert identity_of(recursive) == identity_of(recursive)


@pytest.mark.parametrize("thing", [threading.Lock(), functools.partial(max, threading.Lock()), (i for i in range(3))])
def test_what_has_no_content_has_no_identity(thing: object) -> None:
    with pytest.raises(ValueError, match=r"the metric.*evaluation\.store=null"):
        identity_of(thing, called="the metric")


def test_it_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Python orders sets of text differently in each."""
    source = "def metric(o, t):\n    return o in {'kl', 'loss', 'accuracy', 'agreement', 'a', 'b', 'c'}\n"
    program = (
        "import sys, torch\nfrom functools import partial\nfrom autoprune.identity import identity_of\n"
        "from autoprune.task.task import accuracy\n"
        f"space = {{'__name__': 'theirs'}}\nexec({source!r}, space)\n"
        "print(identity_of([space['metric'], partial(accuracy, targets=1), torch.arange(4.0), {'a': None}]))"
    )
    here = identity_of([written(source), functools.partial(accuracy, targets=1), torch.arange(4.0), {"a": None}])
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    there = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment, cwd=Path.cwd()
    )
    assert there.stdout.strip() == here
