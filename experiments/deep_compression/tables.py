"""The README's tables of what was measured."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.readme import table

Json = Mapping[str, Any]


def measured(content: Json) -> str:
    """Returns Markdown of every figure that there is.

    Args:
        content: Of results.json.
    """
    origin = content["origin"]
    parts = [f"Written {origin['date']} at commit {origin['commit']} of all cells that are kept; one thread each.\n"]
    parts += [_network(name, figures) for name, figures in content["figures"].items()]
    parts += [
        _sizes(content["sizes"]),
        _decoding(content["decoding"]),
        _pairs(content["pairs"]),
        _language(content["language"]),
    ]
    return "\n".join(part for part in [*parts, *_settings(content["settings_tried"])] if part)


def _network(name: str, figures: Json) -> str:
    points = f"{_interval(figures['points'], 2)} (dense {figures['dense'][0]:.1f} %)"
    rows = [
        ("chosen setting", f"density {figures['density']:g}, {figures['bits']} bits; seeds {figures['seeds']}"),
        ("fp32 ÷ file", _interval(figures["ratio"], 1)),
        ("points of test accuracy, file − dense", points),
        ("read back: the same bits", "in every cell" if figures["same_bits"] else "**no**"),
        ("file ÷ entropy bound", _interval(figures["over_bound"], 3)),
        *((f"file ÷ {other}", _interval(values, 2)) for other, values in figures["over"].items()),
    ]
    return _table(name, ("figure", "measured"), rows)


def _sizes(sizes: Json) -> str:
    titles = ("network", "plans", "largest miss", "mean miss", "Huffman ÷ entropy", "shortest code ÷ entropy")
    rows = []
    for name, each in sizes.items():
        misses = f"{each['largest_miss']:.2%}", f"{each['mean_miss']:.2%}"
        streams = f"{each['huffman_over_entropy']:.3f}", f"{each['shortest_over_entropy']:.3f}"
        rows.append((name, each["plans"], *misses, *streams))
    return _table("Predicted sizes and streams of random plans", titles, rows)


def _decoding(decoding: Sequence[Json]) -> str:
    rows = [
        (f"{row['density']:g}", row["bits"], f"{row['file'] / 1e3:.0f} kB", f"{row['seconds_per_10_mb']:.2f}")
        for row in decoding
    ]
    return _table("Reading 10 MB of float32 weights", ("density", "bits", "file", "processor seconds"), rows)


def _pairs(pairs: Json) -> str:
    titles = (
        "", "seeds", "file", "KL, post-training", "gain over fixed bits, post-training, points",
        "points, recovered − dense", "gain over fixed bits, recovered, points", "largest miss of the prediction before",
    )  # fmt: skip
    rows = []
    for method, each in pairs.items():
        none = method == "fixed bits" or each["gain"] is None
        gains = ["", ""] if none else [_interval(each[key], 2) for key in ("gain_post_training", "gain")]
        size = f"{each['bytes'] / 1e3:.2f} kB{'' if each['meets'] else ', **missed**'}"
        row = (
            _interval(each["kl"], 3),
            gains[0],
            _interval(each["points"], 2),
            gains[1],
            f"{each['largest_miss']:.1%}",
        )
        rows.append((method, each["seeds"], size, *row))
    return _table("Pairs of density and bits at 1/40, LeNet-300-100", titles, rows)


def _language(cells: Sequence[Json]) -> str:
    titles = (
        "", "", "FFNs: kept", "fp32 ÷ coded", "bits a weight", "file", "file ÷ predicted", "KL", "perplexity ÷ dense",
    )  # fmt: skip
    rows = []
    for cell in cells:
        for stage in ("post_training", "centroids_trained"):
            each = cell[stage]
            kept, bits = each["ffn_kept"] / each["ffn_weights"], 8 * each["ffn_bytes"] / each["ffn_weights"]
            file, miss = each["bytes"] / 1e6, each["bytes"] / cell["predicted"]
            perplexity = each["perplexity"] / cell["dense_perplexity"]
            rows.append((
                cell["method"], stage.replace("_", "-"), f"{kept:.1%}", f"{32 / bits:.1f}", f"{bits:.2f}",
                f"{file:.1f} MB", f"{miss:.3f}", f"{each['kl']:.3f}", f"{perplexity:.2f}",
            ))  # fmt: skip
    return _table("SmolLM2-135M, FFNs coded and all else at fp32", titles, rows)


def _settings(settings: Sequence[Json]) -> Iterable[str]:
    for name in dict.fromkeys(each["network"] for each in settings):
        own = {(each["density"], each["bits"]): each for each in settings if each["network"] == name}
        bits = sorted({key[1] for key in own}, key=lambda each: -(each or 33))
        rows = []
        for density in sorted({key[0] for key in own}, reverse=True):
            cells = [own.get((density, each)) for each in bits]
            texts = ["" if c is None else f"{c['ratio'][0]:.1f}×, {_signed(c['points'][0])}" for c in cells]
            rows.append((f"{density:g}", *texts))
        titles = ("density", *("no codebook" if each is None else f"{each} bits" for each in bits))
        yield _table(
            f"{name}: fp32 ÷ file and points of test accuracy of every setting, means over seeds", titles, rows
        )


def _table(title: str, titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"**{title}**\n\n" + "\n".join([*table(titles, rows), ""]) if rows else ""


def _interval(values: Sequence[float], digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}".replace("-", "−") for value in values)
    return mean if math.isnan(values[1]) else f"{mean} [{low}, {high}]"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
