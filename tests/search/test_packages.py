"""The searches that other packages do: what is asked of them, and what is said where they are missing."""

import logging
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.random import default_rng

from autoprune.search import cma, tpe
from tests.search.known import KNOWN
from tests.search.searches import SEARCHES, batch_sizes


@pytest.mark.parametrize(("name", "package"), [("cmaes", "cmaes"), ("tpe", "optuna")])
def test_a_missing_package_is_said_before_anything_is_paid_for(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  # as Python marks what cannot be imported
    problem = KNOWN["chain"].problem(tmp_path, limit=50)
    with pytest.raises(ImportError, match=rf"agent={name}.*'autoprune\[search\]'"):
        SEARCHES[name](problem, rng=default_rng(0))
    assert problem.objective.spent == 0


def test_a_generation_is_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = KNOWN["chain"].problem(tmp_path, limit=20)
    sizes = batch_sizes(problem, monkeypatch)
    cma.search(problem, rng=default_rng(0), start="uniform", sigma=0.3, population=6)
    assert sizes == [1, 6, 6, 6, 6]  # the last of them is cut to the one that is left


def test_any_logarithms_have_a_plan() -> None:
    known = KNOWN["chain"]
    for logarithms in (np.array([900.0, -900.0, 0, 1, 2]), np.full(5, -1e5), np.full(5, 1e5)):
        kept = cma._projected(known.projector, logarithms)
        assert float(known.projector.budget.cost(kept)) <= known.projector.budget.limit


def test_optuna_says_nothing_and_is_left_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    optuna: ModuleType = tpe._optuna()
    optuna.logging.set_verbosity(logging.INFO)
    tpe.search(KNOWN["chain"].problem(tmp_path, limit=12), rng=default_rng(0), least_density=0.1, random=3)
    assert optuna.logging.get_verbosity() == logging.INFO
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
