"""matplotlib figures as inline SVG whose colours and fonts are the page's own, drawn once for all widths of screens."""

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

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
DASHED = (0, (5, 3))
WIDTHS = {"full": 680, "half": 470, "small": 150}  # px that a panel is drawn in, about as wide as a page shows it
# A telephone shows a full panel at half its size, so its text is 17.5 px there (style.css.jinja) and 12.5 px elsewhere:
# the larger text is given room, and then the smaller one is drawn.
TEXT, TELEPHONE = 12.5, 17.5
STYLE: Any = {  # matplotlib's types name each of its settings
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a layer's name is a dollar
    "axes.titlelocation": "left",
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
Draw = Callable[[Axes], None]
Key = tuple[str, str, str]  # name in COLOURS, shape, label


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of a page."""

    title: str
    """Its heading."""
    caption: str
    """What stands below it."""
    key: tuple[Key, ...]
    """The entries of its legend."""
    size: str
    """One of WIDTHS: one panel beside its caption, panels in two columns, or as many small ones as fit."""
    panels: tuple[Markup, ...]
    """SVG."""


def picture(
    title: str, caption: str, panels: Sequence[Draw], *, height: float, key: Sequence[Key], small: bool = False
) -> Picture:
    """Every panel is drawn on axes of its own.

    Args:
        title: Its heading.
        caption: a paragraph.
        panels: What draws each.
        height: Of a panel, in px.
        key: The entries of the legend.
        small: Many small panels side by side.
    """
    size = "small" if small else "full" if len(panels) == 1 else "half"
    return Picture(title, caption, tuple(key), size, tuple(_svg(draw, size=size, height=height) for draw in panels))


def _svg(draw: Draw, *, size: str, height: float) -> Markup:
    texts = ("font.size", "axes.labelsize", "axes.titlesize", "xtick.labelsize", "ytick.labelsize")
    fonts: Any = dict.fromkeys(texts, {"full": TELEPHONE, "half": TEXT, "small": 11.0}[size])
    with mpl.rc_context({**STYLE, **fonts, "svg.hashsalt": "autoprune"}):  # the same figure is the same text
        figure = Figure(figsize=(WIDTHS[size] / 72, height / 72), dpi=72, layout="constrained")  # 1 pt is 1 px
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        if size == "full":
            _shrink_text(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_inline(buffer.getvalue()))


def _shrink_text(figure: Figure) -> None:
    """Text becomes as large as on a wide screen, where that for a telephone has room."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        axis.set_label_coords(*axis.label.get_position(), axis.label.get_transform())
    for text in figure.findobj(Text):
        text.set_fontsize(float(text.get_fontsize()) * TEXT / TELEPHONE)


def _inline(svg: str) -> str:
    """An SVG file as an element of a page: no prologue, no metadata, no size of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # "axes_1" and the like would stand on the page many times
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]  # and so would what two figures have in common
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{own}", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", svg)


def agent_style(name: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """How the line of an agent is drawn: in its colour, every second one dashed; thin and grey where it has none.

    Args:
        name: The name.
        colours: What is drawn → its colour.
    """
    if name not in colours:
        return {"color": COLOURS["point"], "lw": 0.9, "alpha": 0.75, "zorder": 2}
    style = DASHED if SERIES.index(colours[name]) % 2 else "-"
    return {"color": COLOURS[colours[name]], "lw": 2.2, "ls": style, "zorder": 3}


def only_horizontal_grid(axes: Axes) -> None:
    axes.grid(visible=False, axis="x")


def percent_axis(axis: Axis, *, digits: int | None = 0, ticks: int = 5) -> None:
    """Fractions are shown in per cent.

    Args:
        axis: The axis of a figure.
        digits: Digits after the point.
        ticks: How many marks at most.
    """
    axis.set_major_locator(MaxNLocator(nbins=ticks))
    axis.set_major_formatter(PercentFormatter(1, decimals=digits, symbol=" %"))


def log_axis(axis: Axis, *, subs: Sequence[float] = (1, 3)) -> None:
    """Ticks at these multiples of the powers of ten, written out.

    Args:
        axis: The axis of a figure.
        subs: Which multiples of the powers of ten are marked.
    """
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def name_rows(axes: Axes, names: Sequence[str], *, longest: int = 20) -> range:
    """A row for each name, the first at the top; returns the rows' places.

    Args:
        axes: A figure's axes.
        names: Names, in order.
        longest: Characters that fit.
    """
    rows = range(len(names))
    axes.set_yticks(rows, [shortened(name, longest=longest) for name in names])
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(names) - 0.4, -0.6)
    return rows


def shortened(name: str, *, longest: int) -> str:
    """A long qualified name without its middle.

    Args:
        name: The name.
        longest: Characters that fit.
    """
    if len(name) <= longest:
        return name
    tail = longest * 2 // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"
