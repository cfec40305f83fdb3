"""matplotlib figures as inline SVG whose colours and fonts are the page's own."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Drawn in these colours; the page replaces each by its variable of the same name, so that dark mode reaches them.
COLOURS = {
    "ink": "#1f2733",
    "muted": "#6a7381",
    "grid": "#e6e8ec",
    "surface": "#fefefe",
    "dense": "#8a919c",
    "uniform": "#c4820e",
    "sensitivity": "#0c8a6f",
    "searched": "#2a5bd7",
    "point": "#aab1bd",
    "one": "#2f5fd0",  # and on: of several agents the first six
    "two": "#d1495b",
    "three": "#0b8f74",
    "four": "#b8790a",
    "five": "#7b3fb8",
    "six": "#1786a8",
}
SERIES = ("one", "two", "three", "four", "five", "six")
MARKERS = {"dense": "X", "uniform": "s", "sensitivity": "D", "searched": "o"}
WIDE, NARROW = 920, 350  # px of the page's column, and of a telephone's
STYLE: Any = {  # matplotlib's types name each of its settings
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a layer's name is a dollar
    "font.size": 12.5,
    "axes.labelsize": 12.5,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["grid"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 1.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page. key: (name in COLOURS, shape, label) per entry of its legend; wide and narrow: SVG."""

    title: str
    caption: str
    key: tuple[tuple[str, str, str], ...]
    wide: str
    narrow: str


def picture(
    title: str,
    caption: str,
    *,
    key: Sequence[tuple[str, str, str]],
    draw: Callable[[Figure, bool], None],
    height: Callable[[bool], float],
) -> Picture:
    """Draws once for a page and once for a telephone; `draw` and `height` (px) are told whether it is narrow."""
    wide = _svg(title, draw, width=WIDE, height=height(False), narrow=False)
    narrow = _svg(title, draw, width=NARROW, height=height(True), narrow=True)
    return Picture(title, caption, tuple(key), wide, narrow)


def _svg(title: str, draw: Callable[[Figure, bool], None], *, width: float, height: float, narrow: bool) -> str:
    # The salt keeps the ids of one page's figures apart, and makes the same figure the same text.
    with mpl.rc_context({**STYLE, "svg.hashsalt": f"{title}/{narrow}"}):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")  # 1 pt is 1 px of the page
        FigureCanvasSVG(figure)
        draw(figure, narrow)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue())


def _inline(svg: str) -> str:
    """An SVG file as an element of a page: no prologue, no metadata, no size of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # "axes_1" and the like would stand on the page many times
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", svg)


def only_horizontal_grid(axes: Axes) -> None:
    axes.grid(visible=False, axis="x")


def shortened(name: str, *, longest: int) -> str:
    """A long qualified name without its middle."""
    if len(name) <= longest:
        return name
    tail = longest * 2 // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"
