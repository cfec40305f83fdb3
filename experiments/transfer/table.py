"""What was measured, as tables and in sentences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.report.wording import counted
from experiments.bootstrap import bootstrapped_mean
from experiments.readme import table

ON_TEST = ("sensitivity", "returned")
Row = Mapping[str, Any]


def markdown(record: Mapping[str, Any]) -> str:
    lines = [f"{record['date'][:10]}, commit {record['commit']}, {record['machine']['processor']}, one thread.", ""]
    for stage, part in (("zero_shot", zero_shot), ("few_shot", few_shot), ("conditioned", conditioned)):
        if record.get(stage):
            lines += part(record[stage])
    return "\n".join(lines)


def zero_shot(rows: Sequence[Row]) -> list[str]:
    """Scores of plans for networks of the family that was left out."""
    best = {
        cell: min(min([*row["kl"]["search"].values(), row["switches"]]) for row in of) for cell, of in by_cell(rows)
    }
    titles = ("sensitivity", "+ 8 random switches", "+ the policy's 8", "sensitivity", "returned", "gain")
    lines = []
    for family in [*dict.fromkeys(row["family"] for row in rows), None]:
        of = [row for row in rows if family in (None, row["family"])]
        columns = [
            [scored(row["kl"]["search"], best[cell_of(row)], "sensitivity") for row in of],
            [scored(row["kl"]["search"] | {"it": row["switches"]}, best[cell_of(row)], "it") for row in of],
            [scored(row["kl"]["search"] | {"it": known(row)}, best[cell_of(row)], "it") for row in of],
            *([scored(row["kl"]["test"], min(row["kl"]["test"].values()), name) for row in of] for name in ON_TEST),
        ]
        gains = [100 * (1 - row["kl"]["test"]["returned"] / without(row)) for row in of]
        lines.append([family or "**all**", *(mean_in(column, of) for column in columns), f"{np.mean(gains):+.1f} %"])
    worse = [row for row in rows if row["kl"]["held_out"]["returned"] > least(row["kl"]["held_out"]) + 1e-12]
    tested = [row for row in rows if row["kl"]["test"]["returned"] > 1.02 * without(row)]
    chosen = np.mean([row["chosen"] == "policy" for row in rows])
    seconds = [row["seconds"] for row in rows]
    return [
        f"### Zero-shot: {seeds(rows)}",
        "",
        *table(("left out", *titles), lines),
        "",
        "Scores are between the uniform plan, 0, and the best known, 1, within [−1, 1]; means with 95 % intervals over "
        "networks and budgets. The first three are on the samples that plans are judged on: the sensitivity plan, and "
        "the best of it, the uniform one and 8 more, random ones near it or the policy's. What is *returned* is "
        "chosen on others, and the last three columns are on test data. *Gain*: how much lower its KL is than that of "
        "the plan which would have been returned without a policy, the sensitivity or the uniform one, chosen likewise "
        "(mean).",
        "",
        f"- The policy's plan was returned in {100 * chosen:.0f} % of {len(rows)} cases. Negative transfer on the data "
        f"by which plans are chosen: {len(worse)} cases. On test data, {len(tested)} have a KL that is more than 2 % "
        "higher than without the policy.",
        f"- The policy takes {np.median(seconds):.2f} s for its 8 plans (median; {max(seconds):.2f} s at most), once "
        "the single-group pass is there. Judging them is another matter, and takes what 8 evaluations do.",
        "",
    ]


def few_shot(rows: Sequence[Row]) -> list[str]:
    """Evaluations until 95 % of what learning from nothing achieves."""
    titles = ("curves", "from nothing", "from the policy", "ratio", "ratio with the curves", "score at the end")
    lines = []
    every = []
    for network in [*dict.fromkeys(row["network"] for row in rows), None]:
        of = [row for row in rows if network in (None, row["network"])]
        counts = np.array([[reached(row[kind], row) for kind in ("scratch", "few_shot")] for row in of], float)
        curves = np.array([row["curves"] for row in of])
        paid = counts + curves[:, None]
        ratio, whole = (np.median(each[:, 1] / each[:, 0]) for each in (counts, paid))
        scores = [np.mean([final(row, kind) for row in of]) for kind in ("scratch", "few_shot")]
        every.append((ratio, whole))
        name = f"`{network}`" if network else "**all**"
        cells = [f"{np.median(curves):.0f}", *map(median_of, counts.T), f"{ratio:.2f}", f"{whole:.2f}"]
        lines.append([name, *cells, f"{scores[0]:.2f} → {scores[1]:.2f}"])
    never = sum(not np.isfinite(reached(row["few_shot"], row)) for row in rows)
    return [
        f"### Few-shot: {seeds(rows)}, `{rows[0]['budget']}`, {len(rows[0]['scratch'])} evaluations beside the curves",
        "",
        *table(("network", *titles), lines),
        "",
        "Evaluations until 95 % of the way from the uniform plan to the best one that learning from nothing finds; "
        f"medians over seeds. {never} of {len(rows)} searches from the policy never came there, and count as infinite. "
        "The sensitivity and the uniform plan are the first two of either. *Score at the end*: from nothing → from the "
        "policy, 0 the uniform plan, 1 the best known.",
        "",
    ]


def conditioned(rows: Sequence[Row]) -> list[str]:
    """One policy for five budgets beside five searches."""
    lines = []
    budgets = list(rows[0]["kl"])
    for network in [*dict.fromkeys(row["network"] for row in rows), None]:
        found = []
        for row in (row for row in rows if network in (None, row["network"])):
            same = [other for other in rows if other["network"] == row["network"]]
            for text in budgets:
                best = min(min(other["kl"][text].values()) for other in same)
                found.append([scored(row["kl"][text], best, kind) for kind in ("sensitivity", "policy", "dedicated")])
        sensitivity, policy, search = np.mean(found, axis=0)
        name = f"`{network}`" if network else "**all**"
        lines.append([name, *(f"{value:.2f}" for value in (sensitivity, policy, search, search - policy))])
    spent, each = rows[0]["evaluations"], rows[0]["search"]
    return [
        f"### One policy for every budget: {seeds(rows)}",
        "",
        *table(("network", "sensitivity", "one policy", "a search for each budget", "lost"), lines),
        "",
        f"Budgets {', '.join(f'`{text}`' for text in budgets)}. The policy spends {spent} evaluations on all of them, "
        f"its plans included; the searches {each} on each, {len(budgets) * each} together.",
        "",
    ]


def cell_of(row: Row) -> tuple[str, str]:
    return row["network"], row["budget"]


def by_cell(rows: Sequence[Row]) -> Iterable[tuple[tuple[str, str], list[Row]]]:
    for cell in dict.fromkeys(map(cell_of, rows)):
        yield cell, [row for row in rows if cell_of(row) == cell]


def known(row: Row) -> float:
    """The least KL of the two known plans and the policy's."""
    kl: Mapping[str, float] = row["kl"]["search"]
    return min(kl.get("policy", np.inf), least(kl))


def least(kl: Mapping[str, float]) -> float:
    return min(kl["sensitivity"], kl["uniform"])


def without(row: Row) -> float:
    """The test KL of what is returned where there is no policy."""
    held = row["kl"]["held_out"]
    return float(row["kl"]["test"][min(("sensitivity", "uniform"), key=lambda name: held[name])])


def scored(kl: Mapping[str, float], best: float, plan: str) -> float:
    span = kl["uniform"] - best
    return (
        float(np.clip((kl["uniform"] - kl[plan if plan in kl else "sensitivity"]) / span, -1, 1)) if span > 0 else 0.0
    )


def reached(kl: Sequence[float], row: Row) -> float:
    """Evaluations until 95 % of the way from the uniform plan to the best of the search from nothing; or infinity."""
    uniform, best = row["scratch"][1], min(row["scratch"])
    there = np.flatnonzero(np.minimum.accumulate(kl) <= uniform - 0.95 * (uniform - best))
    return float(there[0] + 1) if len(there) else np.inf


def final(row: Row, kind: str) -> float:
    best = min(row["best"], *row["scratch"], *row["few_shot"])
    return scored({"uniform": row["scratch"][1], "it": min(row[kind])}, best, "it") if best < row["scratch"][1] else 0.0


def mean_in(values: Sequence[float], rows: Sequence[Row]) -> str:
    """The mean, and its 95 % interval over networks and budgets; seeds of one are averaged first."""
    means = {
        c: np.mean([v for v, row in zip(values, rows, strict=True) if cell_of(row) == c]) for c, _ in by_cell(rows)
    }
    return "{:.2f} [{:.2f}, {:.2f}]".format(*bootstrapped_mean([float(mean) for mean in means.values()]))


def median_of(counts: Any) -> str:
    middle = np.median(counts)
    return f"{middle:.0f}" if np.isfinite(middle) else "never"


def seeds(rows: Sequence[Row]) -> str:
    return counted(len({row["seed"] for row in rows}), "training seed")
