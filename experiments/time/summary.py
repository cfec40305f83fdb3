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
    for study, table in (("tickets", _tickets), ("schedules", _schedules), ("agent", _agent)):
        file = HERE / f"{study}.json"
        if not file.is_file():
            continue
        record = json.loads(file.read_text())
        origin = record["origin"]
        where = f"commit {origin['commit']}, {origin['machine']['processor']}"
        made = f"`{origin['command']}`, {origin['date'][:10]}, {where}."
        start, end = f"<!-- {study} -->\n", f"<!-- /{study} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = before + start + "\n".join([*table(record["rows"]), "", made]) + "\n" + end + after
    PAGE.write_text(text)


def _tickets(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    accuracy = _by_seed(rows, ("kind", "round"))
    density = {row["round"]: row["density"] for row in rows if row["kind"] == "ticket"}
    yield "| density | ticket | − dense | − reinitialised | − random mask |"
    yield "|---|---|---|---|---|"
    for number in sorted(each for kind, each in accuracy if kind == "reinitialised"):
        ticket = accuracy["ticket", number]
        pairs = (("dense", 0), ("reinitialised", number), ("random", number))
        differences = [_interval(_differences(ticket, accuracy[pair])) for pair in pairs]
        mean = f"{100 * np.mean(list(ticket.values())):.2f}"
        yield f"| {100 * density[number]:.1f} % | {mean} | {' | '.join(differences)} |"


def _schedules(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    accuracy = _by_seed(rows, ("network", "density", "schedule"))
    names = list(dict.fromkeys(row["schedule"] for row in rows))
    yield f"| network, density | {' | '.join(names)} | cubic − one_shot | rigl − static |"
    yield f"|---|{'---|' * (len(names) + 2)}"
    for network, density in dict.fromkeys((row["network"], row["density"]) for row in rows):
        each = {name: accuracy.get((network, density, name), {}) for name in names}
        means = [f"{100 * np.mean(list(each[name].values())):.2f}" if each[name] else "–" for name in names]
        pairs = [_interval(_differences(each[a], each[b])) for a, b in (("cubic", "one_shot"), ("rigl", "static"))]
        yield f"| {network}, {density:g} | {' | '.join([*means, *pairs])} |"


def _agent(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield "| learned on | method | seeds | regret, best of 100 | own schedule's regret there | on the other network |"
    yield "|---|---|---|---|---|---|"
    for table, method in dict.fromkeys((row["table"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["table"], row["method"]) == (table, method)]
        other = next(name for name in mine[0]["own_regret"] if name != table)
        values = [
            [row["regret"] for row in mine],
            *([row["own_regret"][name] for row in mine] for name in (table, other)),
        ]
        cells = [_interval(each, scale=1, digits=3) for each in values]
        yield f"| {table} | {method} | {len(mine)} | {' | '.join(cells)} |"


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
