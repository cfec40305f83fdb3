"""What was measured, as a table and in sentences."""

from collections.abc import Mapping
from typing import Any

from experiments.readme import table

TIMES = ("dense", "masked", "`flex_attention`", "speedup, mask", "speedup, flex")
FASTER = 1.05  # what counts as a speedup; two runs of one thing differ by about as much


def markdown(record: Mapping[str, Any]) -> str:
    machine, setting, rows = record["machine"], record["setting"], record["rows"]
    origin = (
        f"{record['date'][:10]}, {machine['processor']}, threads: {machine['threads']}, "
        f"torch {record['versions']['torch']}; {setting['heads']} heads of {setting['head_dim']}, "
        f"blocks of {setting['block']} tokens, causal, fp32; median (minimum) ms of {record['repeats']} repeats."
    )
    lines = table(("tokens", "blocks kept", "pairs left", *TIMES), map(_cells, rows))
    return "\n".join([origin, "", *lines, "", *sentences(rows)]) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    times = [milliseconds(row.get(name)) for name in ("dense", "masked", "flex")]
    gains = [speedup(row, name) for name in ("masked", "flex")]
    return [str(row["tokens"]), f"{row['kept']} of {row['blocks']}", f"{row['density']:.0%}", *times, *gains]


def milliseconds(times: Mapping[str, float] | None) -> str:
    return "–" if times is None else f"{times['median_ms']:.1f} ({times['min_ms']:.1f})"


def speedup(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return "–"
    gain = row["dense"]["median_ms"] / row[name]["median_ms"]
    return f"{gain:.2f}×" if gain >= FASTER else f"{gain:.2f}×: no speedup here"


def sentences(rows: list[dict[str, Any]]) -> list[str]:
    """What the table says, in words that follow from its numbers."""
    sparse = [row for row in rows if row["kept"] < row["blocks"]]
    said = []
    for name, what in (("masked", "A mask alone"), ("flex", "`flex_attention`, compiled,")):
        measured = [row for row in sparse if name in row]
        faster = [row for row in measured if row["dense"]["median_ms"] >= FASTER * row[name]["median_ms"]]
        if measured:
            verdict = f"is faster than dense attention in {len(faster)} of {len(measured)} sparse rows"
            said.append(f"- {what} {verdict if faster else 'is never faster than dense attention: no speedup here'}.")
    errors = sorted({row["flex_error"] for row in rows if "flex_error" in row})
    said += [f"- `flex_attention` did not compile here, so there is no speedup here: `{error}`." for error in errors]
    compiled = [row for row in rows if "first_call_s" in row]
    if compiled:
        longest = max(row["first_call_s"] for row in compiled)
        difference = max(row["largest_difference"] for row in compiled)
        said.append(
            f"- Each length is compiled once (the first call takes up to {longest:.0f} s), its levels are not; outputs "
            f"differ from masked attention's by at most {difference:.0e}."
        )
    return said
