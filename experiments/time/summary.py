"""The tables of this folder's page, from the data beside it: means with 95 % intervals of Student's t."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
Rows = Mapping[Any, Mapping[int, float]]


def write_summary() -> None:
    """The page holds the tables between its markers."""
    text = PAGE.read_text()
    tables = {
        "tickets": _tickets, "schedules": _schedules, "rigl": _rigl, "resnet": _resnet, "rewinding": _rewinding,
        "agent": _agent, "family": _family, "overhead": _overhead,
    }  # fmt: skip
    for study, table in tables.items():
        cells = [json.loads(file.read_text()) for file in sorted((HERE / "data").glob(f"{study}_*.json"))]
        if not cells:
            continue
        rows = [row for cell in cells for row in cell["rows"]]
        origins = [cell["origin"] for cell in cells]
        dates = sorted({origin["date"][:10] for origin in origins})
        commits = ", ".join(sorted({origin["commit"] for origin in origins}))
        machines = ", ".join(sorted({origin["machine"]["processor"] for origin in origins}))
        when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        made = f"`{origins[0]['command']}`, {when}, at {commits}, {machines}."
        start, end = f"<!-- {study} -->\n", f"<!-- /{study} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = before + start + "\n".join([*table(rows), "", made]) + "\n" + end + after
    PAGE.write_text(text)


def _tickets(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    accuracy = _by_seed(rows, ("kind", "round"))
    density = {row["round"]: row["density"] for row in rows if row["kind"] == "ticket"}
    yield "| density | seeds | ticket | − dense | − reinitialised | − random mask |"
    yield "|---|---|---|---|---|---|"
    for number in sorted(each for kind, each in accuracy if kind == "reinitialised"):
        ticket = accuracy["ticket", number]
        pairs = (("dense", 0), ("reinitialised", number), ("random", number))
        differences = [_interval(_differences(ticket, accuracy[pair])) for pair in pairs]
        mean = f"{100 * np.mean(list(ticket.values())):.2f}"
        yield f"| {100 * density[number]:.1f} % | {len(ticket)} | {mean} | {' | '.join(differences)} |"


def _schedules(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    accuracy = _by_seed(rows, ("network", "density", "schedule"))
    names = sorted({row["schedule"] for row in rows})
    yield f"| network, density | seeds | {' | '.join(names)} | cubic − one_shot | rigl − static |"
    yield f"|---|{'---|' * (len(names) + 3)}"
    for network, density in sorted({(row["network"], row["density"]) for row in rows}, reverse=True):
        each = {name: accuracy.get((network, density, name), {}) for name in names}
        means = [f"{100 * np.mean(list(each[name].values())):.2f}" if each[name] else "–" for name in names]
        pairs = [_interval(_differences(each[a], each[b])) for a, b in (("cubic", "one_shot"), ("rigl", "static"))]
        counts = [len(values) for values in each.values() if values]
        seeds = "–".join(str(n) for n in sorted({min(counts), max(counts)}))
        yield f"| {network}, {density:g} | {seeds} | {' | '.join([*means, *pairs])} |"


def _rigl(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    accuracy = _by_seed(rows, ("network", "trial", "schedule"))
    yield "| network | trial | seeds | rigl | static | rigl − static |"
    yield "|---|---|---|---|---|---|"
    for network, trial in dict.fromkeys((row["network"], row["trial"]) for row in rows):
        each = [accuracy[network, trial, schedule] for schedule in ("rigl", "static")]
        means = [f"{100 * np.mean(list(values.values())):.2f}" for values in each]
        difference = _interval(_differences(*each))
        yield f"| {network} | {trial} | {len(each[0])} | {' | '.join([*means, difference])} |"


def _resnet(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    tickets = [row for row in rows if row["kind"] == "ticket"]
    accuracy = _by_seed(tickets, ("rewind_step", "round"))
    density = {row["round"]: row["density"] for row in tickets}
    steps = sorted({step for step, _ in accuracy})
    titles = [*(f"rewound to {step}" for step in steps), *(f"{step} − 0" for step in steps[1:])]
    yield f"| density | seeds | {' | '.join(titles)} |"
    yield f"|---|{'---|' * (len(titles) + 1)}"
    for number in sorted(density):
        each = [accuracy.get((step, number), {}) for step in steps]
        means = [f"{100 * np.mean(list(values.values())):.2f}" if values else "–" for values in each]
        pairs = [_interval(_differences(values, each[0])) for values in each[1:]]
        yield f"| {100 * density[number]:.1f} % | {len(each[0])} | {' | '.join([*means, *pairs])} |"


def _rewinding(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for trial in dict.fromkeys(row["trial"] for row in rows):
        first, *lines = _resnet([row for row in rows if row["trial"] == trial])
        yield from ("", f"**{trial}**", "", first, *lines)


def _agent(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield "| learned on | method | seeds | regret, best of all tried | own schedule's there | on the other network |"
    yield "|---|---|---|---|---|---|"
    for table, method in sorted({(row["table"], row["method"]) for row in rows}, reverse=True):
        mine = [row for row in rows if (row["table"], row["method"]) == (table, method)]
        other = next(name for name in mine[0]["own_regret"] if name != table)
        values = [
            [row["regret"] for row in mine],
            *([row["own_regret"][name] for row in mine] for name in (table, other)),
        ]
        cells = [_interval(each, scale=1, digits=3) for each in values]
        yield f"| {table} | {method} | {len(mine)} | {' | '.join(cells)} |"


def _family(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    accuracy, loss = (_mean_of_networks(rows, key) for key in ("test_accuracy", "search_loss"))
    yield "| method | seeds | test accuracy, mean of the networks kept out | − tuned cubic | less held-out loss, nats |"
    yield "|---|---|---|---|---|"
    for method, values in sorted(accuracy.items()):
        points = _interval(_differences(values, accuracy.get("cubic_tpe", {})))
        nats = _interval(_differences(loss.get("cubic_tpe", {}), loss[method]), scale=1, digits=3)
        mean = f"{100 * np.mean(list(values.values())):.2f}"
        yield f"| {method} | {len(values)} | {mean} | {points} | {nats} |"


def _mean_of_networks(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[int, float]]:
    """Method → seed → the mean over networks."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values[row["method"]][row["seed"]].append(row[key])
    return {method: {seed: float(np.mean(each)) for seed, each in seeds.items()} for method, seeds in values.items()}


def _overhead(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield (
        "| network | engine, least | plain loop, least | engine ÷ plain: median of turns | quartiles | of the least "
        "| median over a plain loop with fused SGD |"
    )
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        least = [f"{min(row['milliseconds'][loop]):.2f} ms" for loop in ("engine", "plain")]
        low, high = row["quartiles"]
        fused = f"{row['ratio_to_fused']:.3f}" if "ratio_to_fused" in row else "–"
        ratios = (f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['ratio_of_least']:.3f}", fused)
        yield f"| {row['network']} | {' | '.join([*least, *ratios])} |"


def _by_seed(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Rows:
    accuracy: dict[Any, dict[int, float]] = defaultdict(dict)
    for row in rows:
        accuracy[tuple(row[key] for key in keys)][row["seed"]] = row["test_accuracy"]
    return accuracy


def _differences(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [one[seed] - other[seed] for seed in one if seed in other]


def _interval(values: Sequence[float], *, scale: float = 100, digits: int = 2) -> str:
    """Mean and 95 % interval."""
    scaled = scale * np.array(values)
    if not len(scaled):
        return "–"
    mean = scaled.mean()
    sign = "+" if scale == 100 else ""
    if len(scaled) == 1:
        return f"{mean:{sign}.{digits}f}"
    half = stats.t.ppf(0.975, len(scaled) - 1) * scaled.std(ddof=1) / math.sqrt(len(scaled))
    return f"{mean:{sign}.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]".replace("-", "−")
