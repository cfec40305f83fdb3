"""The page of sizes on the disk, and the rule by which a study's setting is chosen."""

from typing import Any

import pytest

from autoprune.report.compression_page import render_compression
from experiments.deep_compression.figures import chosen_setting, figures, interval, summaries
from tests.report.html_outline import check_page

PARTS = {"kept": 60, "index_bits": 4, "value_bits": 3, "positions": 30, "table": 16, "codes": 20}
LAYER = {
    "name": "fc1", "weights": 1000, "kept": 60, "parts": PARTS, "bytes": 66, "coded_value_bits": 2.7,
    "coded_index_bits": 4.0,
}  # fmt: skip


def cell(seed: int, density: float, bits: int | None, *, size: int, test: float, search: float) -> dict[str, Any]:
    """Accuracies are in points above the dense network's."""
    return {
        "network": "lenet_300_100", "seed": seed, "density": density, "bits": bits, "bytes": size, "ratio": 1e6 / size,
        "accuracy": {"dense": 0.9, "pruned": 0.9, "file": 0.9 + test / 100},
        "held_out": {"dense": 0.9, "file": 0.9 + search / 100},
        "bound": size / 0.99, "same_bits": True, "others": {"xz -9 codes": 2 * size}, "layers": [LAYER],
    }  # fmt: skip


CELLS = [
    *(cell(seed, 0.1, 3, size=30_000 + seed, test=0.1 * seed, search=0.2 - 0.1 * seed) for seed in (3, 1, 2)),
    *(cell(seed, 0.05, 3, size=20_000, test=0.5, search=-0.01) for seed in (1, 2, 3)),
    *(cell(seed, 0.1, None, size=90_000, test=0.2, search=0.3) for seed in (1, 2, 3)),
    *(cell(seed, 1.0, 3, size=110_000, test=0.0, search=0.1) for seed in (1, 2, 3)),
    cell(1, 0.02, 2, size=9_000, test=0.0, search=1.0),  # of one seed only
]


def test_the_setting_is_the_smallest_that_loses_nothing_on_the_search_role() -> None:
    settings = summaries(CELLS)
    chosen = chosen_setting(settings, "lenet_300_100")
    assert chosen is not None
    assert (chosen["density"], chosen["bits"], chosen["seeds"]) == (0.1, 3, 3)
    assert chosen["points"][0] == pytest.approx(0.2)
    assert chosen_setting(settings, "lenet_5") is None
    measured = figures([row for row in CELLS if (row["density"], row["bits"]) == (0.1, 3)])
    assert measured["over"] == {"xz -9 codes": pytest.approx([0.5, 0.5, 0.5])}
    assert measured["over_bound"][0] == pytest.approx(0.99)


def test_intervals_are_students() -> None:
    assert interval([1.0, 2.0, 3.0]) == pytest.approx([2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], rel=1e-4)
    assert interval([4.0])[0] == 4


def test_the_page_has_the_picture_and_every_setting() -> None:
    study = {
        "origin": {"command": "experiments/deep_compression/run", "date": "2026-11-30", "commit": "abc"},
        "train_images": 54_000,
        "settings_tried": summaries(CELLS),
        "figures": {"lenet_300_100": figures([row for row in CELLS if (row["density"], row["bits"]) == (0.1, 3)])},
    }
    text = render_compression(study)
    check_page(text)
    assert "lenet_300_100 33.3 times smaller at +0.20 points" in text
    for part in ("pruning alone", "quantization alone", "both"):
        assert part in text
    assert text.count("<tr") >= 5 + 1
    check_page(render_compression({**study, "figures": {}}))
