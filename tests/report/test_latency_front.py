"""Fronts from run folders: whose latency is whose, and what is interpolated at equal latency."""

import json
from pathlib import Path

import pytest

from autoprune.cli.sweep import write_front
from autoprune.report.front_page import headline, render_front, sentence, write_front_page
from autoprune.report.latency_front import NoFrontError, at_equal_latency, fronts
from tests.report.latency_runs import write_latency_run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """MACs-guided: 80 % and 40 % of the latency with 80 and 60 %; latency-guided halfway between them with 75 %."""
    write_latency_run(tmp_path / "a", "macs:0.8", 1.6, 0.8)
    write_latency_run(tmp_path / "b", "macs:0.4", 0.4, 0.6, dense_ms=1.0)
    write_latency_run(tmp_path / "c", "latency:0.6", 1.2, 0.75)
    write_latency_run(tmp_path / "d", "latency:0.2", 0.4, 0.5)
    return tmp_path


def test_latencies_are_over_the_dense_network_of_the_same_run(sweep: Path) -> None:
    (front,) = fronts([sweep])
    assert {point.run: point.share for point in front.points} == pytest.approx({"a": 0.8, "b": 0.4, "c": 0.6, "d": 0.2})
    assert front.dense_ms == 2.0
    assert list(front.series) == [("evolution", "latency"), ("evolution", "macs")]
    assert front.runtime == "onnxruntime"


def test_accuracy_is_interpolated_at_equal_latency_and_never_beyond(sweep: Path) -> None:
    (front,) = fronts([sweep])
    post, recovered = at_equal_latency(front)
    assert (post.guided, post.other, post.regime) == ("latency", "macs", "post_training")
    assert post.differences == pytest.approx((5.0,)), "75 % where the others have 70 %"
    assert post.outside == 1
    assert recovered.differences == pytest.approx((5.0,))
    assert "+5.00 points in 1 run. 1 of its runs is outside the others' range." in sentence(post)
    assert headline([front]).endswith("changes recovered accuracy by +5.00 points")


def test_a_regime_without_training_is_not_shown(tmp_path: Path) -> None:
    write_latency_run(tmp_path / "a", "latency:0.8", 1.6, 0.8, recovered=0.8)
    write_latency_run(tmp_path / "b", "latency:0.4", 0.8, 0.7, recovered=0.7)
    (front,) = fronts([tmp_path])
    assert front.regimes == ["post_training"]
    assert not at_equal_latency(front)
    assert headline([front]).startswith("From 80")


def test_the_page_holds_every_run_and_escapes_their_names(sweep: Path) -> None:
    write_latency_run(sweep / "e", "latency:0.5", 1.0, 0.7, agent="<script>")
    (front,) = fronts([sweep])
    page = render_front([front])
    assert "<script>" not in page
    assert page.count('<th scope="row">') == 5
    assert page.count("<svg") >= 2
    assert "http" not in page.replace("http://www.w3.org", ""), "it opens offline"
    assert write_front_page([front], sweep).read_text() == page


def test_a_busy_machine_is_noticed(sweep: Path) -> None:
    (front,) = fronts([sweep])
    assert not any(point.surprising for point in front.points), "all predictions are off by the same"
    assert "Read with care" not in render_front([front])
    path = sweep / "c" / "result.json"
    path.write_text(path.read_text().replace('"latency": 1.08', '"latency": 0.8'))
    assert json.loads(path.read_text())["networks"]["searched"]["cost"]["latency"] == 0.8
    (front,) = fronts([sweep])
    assert [point.run for point in front.points if point.surprising] == ["c"]
    assert "The latency of 1 of 4 runs is more than 15 % off" in render_front([front])


def test_sweeps_end_with_a_front_where_there_is_one(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_front(sweep)
    assert (sweep / "front.html").is_file()
    single = tmp_path_factory.mktemp("single")
    write_latency_run(single / "a", "macs:0.8", 1.6, 0.8)
    write_front(single)
    assert not (single / "front.html").exists()


def test_what_is_no_front_says_what_one_takes(tmp_path: Path) -> None:
    with pytest.raises(NoFrontError, match="no complete run"):
        fronts([tmp_path])
    write_latency_run(tmp_path / "a", "macs:0.8", 1.6, 0.8)
    with pytest.raises(NoFrontError, match=r"budget=latency:0\.8"):
        fronts([tmp_path])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fronts([tmp_path / "nowhere"])
    (tmp_path / "a" / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"result\.json"):
        fronts([tmp_path])
