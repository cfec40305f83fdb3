import re
from pathlib import Path

import numpy as np
import pytest

from autoprune.report.contents import read_contents
from autoprune.report.drawing import COLOURS
from autoprune.report.page import render, write_report
from autoprune.report.run_figures import run_figures, search_curve, smooth
from autoprune.report.wording import GAP
from autoprune.runs import RunFolder
from tests.report.html_outline import EVIL, Outline, check_colours, check_page
from tests.report.run_folders import GROUPS, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("report") / "run", evaluations=80)


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_is_whole(page: str) -> None:
    check_page(page)


def test_every_reference_inside_a_figure_has_its_target(page: str) -> None:
    ids = set(Outline(page).ids)
    wanted = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'xlink:href="#([^"]+)"', page))
    assert wanted
    assert wanted <= ids


def test_every_colour_of_a_figure_follows_the_page(run: RunFolder) -> None:
    svg = "".join(panel for picture in run_figures(read_contents(run)) for panel in picture.panels)
    check_colours(svg, set(COLOURS))


def test_the_same_run_gives_the_same_page(run: RunFolder, page: str) -> None:
    assert render(read_contents(run)) == page


def test_all_numbers_of_the_comparison_are_there(page: str) -> None:
    text = page.replace(GAP, " ")
    for shown in ("92.8 %", "55.6 %", "70.1 %", "76.2 %", "92.0 %", "92.1 %", "92.3 %"):  # before and after recovery
        assert f"<b>{shown}</b>" in text
    for shown in ("2.86×", "1.64×", "1.75×", "1.89×", "1.49×", "592 kB", "597 kB", "0.297 ms", "35.0 %"):
        assert shown in text
    assert "Post-training" in text
    assert "Recovered" in text
    assert "Theoretical" in text
    assert "Measured speedup" in text
    assert text.count('<span class="chosen">chosen</span>') == 2  # once in each table


def test_every_figure_is_there_once(page: str) -> None:
    for title in ("Search", "Plan", "Accuracy and cost", "One group at a time", "Recovery"):
        assert f'aria-label="{title}"' in page
    assert page.count('viewBox="0 0 680') == 3  # search, plan, recovery
    assert page.count('viewBox="0 0 470') == 2  # two costs
    assert page.count('viewBox="0 0 150') == len(GROUPS)
    for group in GROUPS:
        assert f">{group}<" in page


def test_the_runs_facts_are_there(page: str) -> None:
    text = page.replace(GAP, " ")
    budget = "macs:0.35: at most 10,857,683 MACs (35.00 % of dense)"
    for fact in ("fashion_resnet20", budget, "80 spent of 80", "autoprune search agent=ppo"):
        assert fact in text
    assert "of it" in text  # how much of the budget is used
    assert "the network&#39;s output" in text  # why fc stays whole
    assert "0f0f" in text
    assert "budget: macs:0.35" in text


def test_what_is_not_counted_stands_on_the_page_of_any_run(tmp_path: Path, page: str) -> None:
    assert "What is not counted" not in page
    for finished in (True, False):
        folder = write_run(tmp_path / str(finished), evaluations=40, curves=False, finished=finished)
        sentences = [f"multiply–accumulates of {EVIL} are not counted", "attn is counted as in the dense network"]
        folder.write_json("structure.json", {**folder.read_json("structure.json"), "uncounted": sentences})
        text = render(read_contents(folder))
        check_page(text)
        assert text.count("<li>multiply–accumulates of &lt;script&gt;alert(1)") == 1
        assert f"<li>{sentences[1]}</li>" in text


def test_equal_plans_are_said_to_be_equal(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=40, curves=False)
    result = folder.read_json("result.json")
    result["networks"]["searched"] = result["networks"]["uniform"]
    folder.write_json("result.json", result)
    text = render(read_contents(folder))
    assert "same plan as uniform" in text
    assert "The search ended on the uniform plan itself." in text


def test_an_unfinished_run_gets_what_there_is(tmp_path: Path) -> None:
    text = render(read_contents(write_run(tmp_path / "run", evaluations=120, finished=False)))
    assert "An unfinished run" in text
    assert "This run has not finished: 60 evaluations" in text
    assert 'aria-label="Search"' in text
    assert 'aria-label="Plan"' in text
    assert "Post-training" not in text


def test_a_run_that_has_hardly_begun_gets_a_page(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write_json("run.json", {})
    text = write_report(folder).read_text(encoding="utf-8")
    assert "0 evaluations" in text
    check_page(text)


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=60, curves=False)
    (folder.path / "recover.jsonl").unlink()
    (folder.path / "config.yaml").unlink()
    (folder.path / "structure.json").unlink()
    result = folder.read_json("result.json")
    for network in result["networks"].values():
        network |= {"latency_ms": None, "file_bytes": {}, "after": None, "proxy": None}
    folder.write_json("result.json", result)
    text = render(read_contents(folder))
    assert 'aria-label="One group at a time"' not in text
    assert 'aria-label="Recovery"' not in text
    assert "without recovery" in text


def test_one_network_without_a_sensitivity_pass_and_one_evaluation(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=37, curves=False)  # 36 are single-group curves
    result = folder.read_json("result.json")
    del result["networks"]["sensitivity"]
    folder.write_json("result.json", result)
    assert 'aria-label="Search"' in render(read_contents(folder))


def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=40)
    evil = RunFolder.create(tmp_path / "evil")
    for file in folder.path.iterdir():
        text = file.read_text(encoding="utf-8").replace("layer1.0.conv1", "LAYER").replace("ppo", "LAYER")
        text = text.replace("fashion_resnet20", "LAYER").replace("the network's output", "LAYER")
        quoted = EVIL if file.suffix == ".yaml" else EVIL.replace('"', '\\"')
        (evil.path / file.name).write_text(text.replace("LAYER", quoted), encoding="utf-8")
    page = write_report(evil).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "$x_1$" in page  # a dollar is no formula
    check_page(page)


def test_a_broken_plan_does_not_flatten_the_curve(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=80, curves=False)
    record = folder.read_lines("history.jsonl")[50]
    folder.append("history.jsonl", {**record, "evaluation": 81, "score": -1e6, "feasible": False})
    folder.append("history.jsonl", {**record, "evaluation": 82, "score": None, "accuracy": None})
    search = search_curve(read_contents(folder))
    assert search is not None
    assert ("point", "down", "further below") in search.key
    assert ("point", "ring", "over the budget") in search.key
    assert "1e6" not in search.panels[0]


def test_the_average_is_flat_on_a_constant_and_skips_gaps() -> None:
    assert smooth(np.full(90, 2.0)) == pytest.approx(np.full(90, 2.0))
    averaged = smooth(np.array([np.nan, 1.0, np.nan, 1.0]))
    assert np.isnan(averaged[0])
    assert averaged[1:] == pytest.approx(np.ones(3))
