"""The fidelity page from a made-up study: complete, offline, and plain about what cannot be known."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.evaluation import judge
from autoprune.fidelity.proxies import single_plans
from autoprune.fidelity.summary import summarise
from autoprune.fidelity.truth import trials
from autoprune.plan import PruningPlan
from autoprune.report.drawing import COLOURS
from autoprune.report.fidelity_page import render_fidelity, write_fidelity_page
from autoprune.report.wording import GAP
from autoprune.runs import RunFolder, machine, versions
from autoprune.structure.groups import Group, Structure
from tests.report.test_page import EVIL, Outline

SCORES = {"accuracy": judge.accuracy, "loss": judge.loss, "kl": judge.kl, "agreement": judge.agreement}
UNITS = (16, 32, 64)
BUDGETS = {"macs:0.35": (16, 5), "macs:0.175": (8, 3)}  # plans, repeated
LENGTHS, SEEDS = (0, 30, 150), 3
Json = dict[str, Any]


def write_study(path: Path, *, spread: float, noise: float, done: float = 1.0) -> RunFolder:
    """Plans whose accuracies differ by `spread` and whose seeds differ by `noise`; `done` is the part recovered."""
    rng = np.random.default_rng(0)
    folder = RunFolder.create(path)
    folder.write_json("run.json", {
        "name": "fashion_resnet20-fidelity", "task": "fashion_resnet20", "seed": 0, "commit": "abc1234",
        "started": "2026-11-22T17:00:00+00:00", "overrides": ["plans=16"], "versions": versions(),
        "machine": machine(), "data": {"search": "1f" * 8},
    })  # fmt: skip
    folder.write_json("study.json", {
        "task": "fashion_resnet20", "units": UNITS, "default": {"repair": "batch_norm", "score": "kl"},
        "repairs": ["none", "batch_norm"], "lengths": LENGTHS, "seeds": SEEDS, "conditions": {},
        "samples": {"proxy": 500, "held_out": 2500, "test": 3500},
        "dense": {role: _metrics(0.934) for role in ("held_out", "test")},
        "levels": [{"budget": b, "plans": n, "repeated": r, "limit": {}} for b, (n, r) in BUDGETS.items()],
    })  # fmt: skip
    plans = {
        budget: [tuple(int(rng.integers(1, units + 1)) for units in UNITS) for _ in range(n)]
        for budget, (n, _) in BUDGETS.items()
    }
    folder.write_json("plans.json", plans)
    for budget, (n, repeated) in BUDGETS.items():
        good = rng.normal(0, 1, n)
        _write_proxies(folder, budget, good, rng)
        wanted = list(trials(budget, plans=n, steps=LENGTHS, seeds=SEEDS, repeated=repeated))
        for trial in wanted[: round(done * len(wanted))]:
            chance = rng.normal(0, noise) if trial.steps else 0.0
            accuracy = 0.9 + spread * good[trial.plan] + chance
            found = {"held_out": _metrics(accuracy), "test": _metrics(accuracy - 0.004)}
            key = {"budget": budget, "plan": trial.plan, "steps": trial.steps, "seed": trial.seed}
            folder.append("truth.jsonl", {**key, "kept": plans[budget][trial.plan], **found})
            folder.append("seconds.jsonl", {**key, "seconds": 0.1 + 0.2 * trial.steps})
    groups = tuple(Group(f"conv{i}", "channel", n, (), tuple(range(1, n + 1))) for i, n in enumerate(UNITS))
    structure = Structure(groups, ())
    of_main = [PruningPlan(structure.names, UNITS, kept) for kept in plans["macs:0.35"]]
    for plan in single_plans(structure, of_main):
        folder.append("singles.jsonl", {"kept": plan.kept, "kl": 0.1 * sum(plan.sparsity.values())})
    summarise(folder, scores=SCORES)
    return folder


def _write_proxies(folder: RunFolder, budget: str, good: Any, rng: np.random.Generator) -> None:
    for proxy, blur, seconds in (("none", 3.0, 0.271), ("batch_norm", 0.2, 0.324), ("short training", 0.1, 7.25)):
        for plan, value in enumerate(good):
            line = {"budget": budget, "proxy": proxy, "plan": plan, "seconds": seconds}
            folder.append("proxies.jsonl", {**line, **_metrics(0.5 + 0.05 * value + 0.05 * blur * rng.normal())})


def _metrics(accuracy: float) -> Json:
    return {"accuracy": accuracy, "loss": 1 - accuracy, "kl": 2 - 2 * accuracy, "agreement": accuracy, "samples": 500}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_study(tmp_path_factory.mktemp("fidelity") / "study", spread=0.01, noise=0.001)


@pytest.fixture(scope="module")
def page(folder: RunFolder) -> str:
    return write_fidelity_page(folder).read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_fetches_nothing(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(target.startswith("#") for target in outline.fetched)
    assert not {"script", "link", "iframe", "img", "object"} & set(outline.tags)
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_colour_is_the_pages_own(page: str) -> None:
    assert set(re.findall(r"var\(--(\w+)\)", page)) <= {*COLOURS, "page", "tint", "warn", "heat"}
    figures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(?:id="|href="#|url\(#)[^")]*', "", figures))


def test_the_headline_says_who_ranks_best_and_how_well(page: str, folder: RunFolder) -> None:
    found = folder.read_json("fidelity.json")["recommendation"]
    assert found["repair"] == "batch_norm"
    assert found["reaches"] is True
    assert (
        f"batch_norm × {found['score']} ranks plans as 150 steps of recovery do: τ = {found['tau']['value']:.3f}"
        in page
    )
    assert "Recommended: batch_norm" in page
    assert "Within the better half" in page


def test_everything_is_there(page: str) -> None:
    text = page.replace(GAP, " ")
    for title in ("What a search sees, and what recovery makes of it", "Do plans differ at all?"):
        assert f'aria-label="{title}"' in text
    assert 'aria-label="Groups alone and together"' in text
    assert "How well each proxy ranks the plans" in text
    assert "72 rankings" in text  # three proxies × four scores × three lengths × two budgets
    for said in (
        "324 ms",
        "7.2 s",
        "30 s",
        "abc1234",
        "autoprune fidelity plans=16",
        "1f1f",
        "2500 held out",
        "93.4 %",
    ):
        assert said in text
    assert "R² = 1.000" not in text  # these singles have nothing to do with these plans
    assert "An unfinished study" not in text


def test_where_noise_is_all_there_is_nothing_can_rank(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", spread=0.0, noise=0.002)
    found = folder.read_json("fidelity.json")["recommendation"]
    text = write_fidelity_page(folder).read_text()
    assert "nothing can rank these plans" in re.findall(r"<h1>(.*?)</h1>", text)[0]
    assert "The default, batch_norm × kl, stays" in text
    assert (found["repair"], found["score"], found["rule"], found["reaches"]) == ("batch_norm", "kl", "kept", None)


def test_an_unfinished_study_gets_what_there_is(tmp_path: Path) -> None:
    text = write_fidelity_page(write_study(tmp_path / "study", spread=0.01, noise=0.001, done=0.5)).read_text()
    assert "An unfinished study of fashion_resnet20" in text
    assert 'aria-label="Do plans differ at all?"' in text
    assert Outline(text).open == []


def test_a_study_that_has_hardly_begun_gets_a_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", spread=0.01, noise=0.001, done=0.0)
    for name in ("proxies.jsonl", "singles.jsonl", "run.json"):
        (folder.path / name).unlink()
    summarise(folder, scores=SCORES)
    text = write_fidelity_page(folder).read_text()
    assert "0 of" in text
    assert Outline(text).open == []


def test_what_comes_from_the_file_is_escaped(folder: RunFolder) -> None:
    result = folder.read_json("fidelity.json")
    result["run"] |= {"name": EVIL, "overrides": [EVIL]}
    result["task"] = EVIL
    text = render_fidelity(result)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_same_file_gives_the_same_page(folder: RunFolder, page: str) -> None:
    assert render_fidelity(folder.read_json("fidelity.json")) == page
