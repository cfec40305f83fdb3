"""The comparison's grids as SVG of its own: who beats whom, and plans side by side. Colours are the page's."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from autoprune.report.comparison_wording import agents_of, probability
from autoprune.report.drawing import WIDE, shortened

Json = Mapping[str, Any]
LABEL = 7.2  # px of a character at 12.5 px
ROW, TEXT = 25, 12
MOST_TEXT = 30  # agents whose cells have numbers in them


def matrix(result: Json, regime: str) -> str:
    """P(row is better than column) for every two agents; blue where it is above a half, red where below."""
    names = [agent["label"] for agent in agents_of(result, regime)]
    known = {(pair["a"], pair["b"]): pair["improvement"] for pair in result[regime]["pairs"]}
    left, side = _left(names), min(40.0, max(18.0, (WIDE - _left(names)) / max(1, len(names))))
    parts = []
    for row, a in enumerate(names):
        parts.append(_text(left - 8, ROW * row + 17, shortened(a, longest=28), anchor="end"))
        for column, b in enumerate(names):
            found = known.get((a, b)) or _turned(known.get((b, a)))
            if found is None:
                continue
            told = found["low"] > 0.5 or found["high"] < 0.5
            colour, strength = ("one" if found["value"] >= 0.5 else "two"), 1.5 * abs(found["value"] - 0.5) + 0.04
            x, y = left + side * column, ROW * row
            tip = f"P({a} is better than {b}) = {probability(found)}"
            parts.append(_box(x, y, side - 2, ROW - 2, colour, strength, tip))
            if len(names) <= MOST_TEXT and side >= 24:
                text = f"{100 * found['value']:.0f}"
                parts.append(_text(x + side / 2 - 1, y + 16.5, text, anchor="middle", faint=not told, size=11))
    return _svg(parts, left + side * len(names), ROW * len(names), below=names, left=left, side=side)


def plans(cell: Json, order: Sequence[str]) -> str:
    """The median plan of each agent: a row of how much of every group is kept, darker is more."""
    names = [name for name in order if name in cell["agents"]]
    names += [name for name in cell["agents"] if name not in names]
    groups, units, left = cell["groups"], cell["units"], _left(names)
    side = min(58.0, max(4.0, (WIDE - left) / max(1, len(groups))))
    parts = []
    for row, name in enumerate(names):
        parts.append(_text(left - 8, ROW * row + 17, shortened(name, longest=28), anchor="end"))
        for column, (group, density) in enumerate(zip(groups, cell["agents"][name], strict=True)):
            tip = f"{name}: {group} keeps {density * units[column]:g} of {units[column]} units"
            x = left + side * column
            parts.append(_box(x, ROW * row, side - (1.5 if side > 8 else 0), ROW - 2, "one", 0.04 + 0.9 * density, tip))
            if side >= 34:
                text = f"{100 * density:.0f}"
                parts.append(
                    _text(x + side / 2, ROW * row + 16.5, text, anchor="middle", size=11, light=density > 0.72)
                )
    shown = groups if side >= 13 else []
    return _svg(parts, left + side * len(groups), ROW * len(names), below=shown, left=left, side=side)


def _svg(parts: Sequence[str], width: float, height: float, *, below: Sequence[str], left: float, side: float) -> str:
    names = [shortened(name, longest=22) for name in below]
    drop = 0.72 * LABEL * max(map(len, names), default=0) + (22 if names else 0)
    parts = [
        *parts,
        *(
            f'<text transform="translate({left + side * (i + 0.5) + 4:.1f} {height + 12:.1f}) rotate(-45)" '
            f'text-anchor="end" font-size="{TEXT}" fill="var(--muted)">{escape(name)}</text>'
            for i, name in enumerate(names)
        ),
    ]
    size = f'width="{width:.0f}" height="{height + drop:.0f}" viewBox="0 0 {width:.0f} {height + drop:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{"".join(parts)}</svg>'


def _box(x: float, y: float, width: float, height: float, colour: str, strength: float, tip: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="var(--{colour})" '
        f'fill-opacity="{min(1.0, strength):.2f}"><title>{escape(tip)}</title></rect>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str, size: float = TEXT, faint: bool = False, light: bool = False
) -> str:
    colour = "var(--muted)" if faint else "var(--surface)" if light else "var(--ink)"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}" '
        f'pointer-events="none">{escape(text)}</text>'
    )


def _left(names: Sequence[str]) -> float:
    return 16 + 0.92 * LABEL * min(28, max(map(len, names), default=0))


def _turned(found: Json | None) -> Json | None:
    if found is None:
        return None
    return {"value": 1 - found["value"], "low": 1 - found["high"], "high": 1 - found["low"]}
