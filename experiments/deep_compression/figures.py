"""What the cells come to: means over seeds of every setting, and the setting that the search role chooses."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import scipy.stats

Row = Mapping[str, Any]


def summaries(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Returns a row for each network, density and bits: means over seeds, with 95 % intervals by Student's t.

    Args:
        rows: Cells.
    """
    grouped: dict[tuple[str, float, int | None], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["network"], row["density"], row["bits"]), []).append(row)
    return [
        {
            "network": network, "density": density, "bits": bits, "seeds": len(cells),
            "bytes": statistics.fmean(row["bytes"] for row in cells),
            "ratio": interval([row["ratio"] for row in cells]),
            "points": interval([_points(row["accuracy"]) for row in cells]),
            "search_points": interval([_points(row["held_out"]) for row in cells]),
        }
        for (network, density, bits), cells in grouped.items()
    ]  # fmt: skip


def chosen_setting(settings: Sequence[Row], network: str) -> Row | None:
    """Returns the setting of the smallest files among those no worse than dense on the search role in the mean.

    Only settings with as many seeds as any count; None where there is none.

    Args:
        settings: What `summaries` returns.
        network: Of which one is chosen.
    """
    own = [each for each in settings if each["network"] == network]
    most = max((each["seeds"] for each in own), default=0)
    good = [each for each in own if each["seeds"] == most and each["search_points"][0] >= 0 and each["bits"]]
    return min(good, key=lambda each: float(each["bytes"]), default=None)


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the README's figures of one setting's cells.

    Args:
        rows: A cell for each seed.
    """
    others = {name: [row["others"][name] for row in rows] for name in rows[0]["others"]}
    return {
        "seeds": [row["seed"] for row in rows],
        "density": rows[0]["density"],
        "bits": rows[0]["bits"],
        "ratio": interval([row["ratio"] for row in rows]),
        "points": interval([_points(row["accuracy"]) for row in rows]),
        "dense": interval([100 * row["accuracy"]["dense"] for row in rows]),
        "over_bound": interval([row["bytes"] / row["bound"] for row in rows]),
        "same_bits": all(row["same_bits"] for row in rows),
        "over": {
            name: interval([row["bytes"] / size for row, size in zip(rows, sizes, strict=True)])
            for name, sizes in others.items()
        },
        "layers": rows[0]["layers"],
    }


def interval(values: Sequence[float]) -> list[float]:
    """Returns the mean, and the ends of its 95 % interval; NaN where there is one value.

    Args:
        values: One for each seed.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean, float("nan"), float("nan")]
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return [mean, mean - half, mean + half]


def _points(accuracy: Mapping[str, float]) -> float:
    return 100 * (accuracy["file"] - accuracy["dense"])


def size_figures(plans: Sequence[Row]) -> dict[str, Any]:
    """Returns how far files are from their predictions, and streams from their entropies.

    Args:
        plans: Bytes of each random plan.
    """
    misses = [abs(plan["written"] / plan["predicted"] - 1) for plan in plans]
    return {
        "plans": len(plans),
        "mean_miss": statistics.fmean(misses),
        "largest_miss": max(misses),
        **{
            f"{kind}_over_entropy": statistics.fmean(plan[kind] / plan["entropy"] for plan in plans)
            for kind in ("huffman", "shortest")
        },
    }


def pair_figures(cells: Sequence[Row]) -> dict[str, Any]:
    """Returns each method's means, and its gain over fixed bits in points of test accuracy, seed by seed.

    Args:
        cells: One for each method and seed.
    """
    by_method: dict[str, dict[int, Row]] = {}
    for each in cells:
        by_method.setdefault(each["method"], {})[each["seed"]] = each
    fixed = by_method.get("fixed bits", {})
    measured = {}
    for method, own in by_method.items():
        shared = sorted(own.keys() & fixed.keys())
        measured[method] = {
            "seeds": len(own),
            "bytes": statistics.fmean(each["bytes"] for each in own.values()),
            "meets": all(each["meets"] for each in own.values()),
            "post_training": interval([100 * each["post_training"]["accuracy"] for each in own.values()]),
            "kl": interval([each["post_training"]["kl"] for each in own.values()]),
            "recovered": interval([100 * each["recovered"] for each in own.values()]),
            "points": interval([100 * (each["recovered"] - each["dense"]) for each in own.values()]),
            "gain": interval([100 * (own[seed]["recovered"] - fixed[seed]["recovered"]) for seed in shared])
            if shared
            else None,
            "gain_post_training": interval(
                [100 * (own[s]["post_training"]["accuracy"] - fixed[s]["post_training"]["accuracy"]) for s in shared]
            )
            if shared
            else None,
            "largest_miss": max(abs(each["before_limit"] / each["predicted"] - 1) for each in own.values()),
        }
    return measured
