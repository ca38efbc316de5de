"""Charts as inline SVG: text that stands in a page, reads in dark and in light, and needs nothing from anywhere.

Lines and letters take the page's own colour (`currentColor`).  A chart carries the ranges of its axes in `data-x` and
`data-y`, so that the numbers which it shows can be read back from it.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple, TypeAlias

import numpy as np

Numbers: TypeAlias = Sequence[float] | np.ndarray

WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34
_PALETTE = ("#3b7dd8", "#d9722e", "#2f9e6e", "#b5499b", "#a1861c", "#7a6ad0", "#c8504f", "#3a9bb0")


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      name: what the legend and the pointer call it.
      x, y: its points; where y is not finite there is a gap.
      colour: of SVG.
      dashed: whether it is drawn in dashes.
      low, high: the edges of a band around it, such as one deviation; None draws none.
      dots: draw its points instead of a line between them, with a mark each.
    """

    name: str
    x: Numbers
    y: Numbers
    colour: str = _PALETTE[0]
    dashed: bool = False
    low: Numbers | None = None
    high: Numbers | None = None
    dots: bool = False


class _Axis(NamedTuple):
    """From numbers to places: `low` and `high` are the ends of the range, in numbers, at `first` and `last` units."""

    low: float
    high: float
    first: float
    last: float
    log: bool

    def place(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.first + (self.last - self.first) * (value - low) / (high - low)


def colour(i: int, count: int) -> str:
    """The colour of one of several things: of a few, distinct ones; of many, one on a scale from blue to orange.

    Examples:
      >>> colour(0, 2), colour(0, 64), colour(63, 64)
      ('#3b7dd8', 'hsl(220 70% 52%)', 'hsl(20 70% 52%)')
    """
    if count <= len(_PALETTE):
        return _PALETTE[i]
    return f"hsl({round(220 - 200 * i / (count - 1))} 70% 52%)"


def chart(lines: Sequence[Line], *, title: str, x: str, y: str, log: bool = False) -> str:
    """A chart of lines over a common axis.

    Args:
      lines: at least one, with at least one finite point; of a logarithmic chart, points at or below zero are left out.
      title: what it shows, for those who cannot see it.
      x, y: names of the axes.
      log: the y axis is logarithmic.

    Returns:
      An `svg` element; "" where there is nothing to draw.
    """
    shown = lambda v: v is not None and math.isfinite(v) and (v > 0 or not log)
    edges = [edge for line in lines for edge in (line.y, line.low, line.high) if edge is not None]
    ys = [float(v) for edge in edges for v in edge if shown(v)]
    xs = [float(v) for line in lines for v in line.x if math.isfinite(v)]
    if not xs or not ys:
        return ""
    across = _Axis(*_range(min(xs), max(xs), False, tight=True), _LEFT, WIDTH - _RIGHT, False)
    up = _Axis(*_range(min(ys), max(ys), log), HEIGHT - _BOTTOM, _TOP, log)
    parts = [_grid(across, up, x, y, whole=all(v == int(v) for v in xs))]
    for line in lines:
        if line.low is not None and line.high is not None:
            parts.append(_band(line, across, up, shown))
        parts.append(_line(line, across, up, shown))
    return svg(WIDTH, HEIGHT, title, "".join(parts), (across, up))


def bars(names: Sequence[str], stacks: Sequence[tuple[str, Sequence[float]]], *, title: str, y: str) -> str:
    """Bars side by side, each a stack of amounts that are not negative.

    Args:
      names: of the bars.
      stacks: of each layer its name, and an amount for each bar.
      title, y: as of `chart`.
    """
    totals = np.sum([values for _, values in stacks], axis=0)
    up = _Axis(0, _range(0, max(float(np.max(totals)), 1e-9), False)[1], HEIGHT - _BOTTOM, _TOP, False)
    across = _Axis(0.5, len(names) + 0.5, _LEFT, WIDTH - _RIGHT, False)
    thick = (WIDTH - _LEFT - _RIGHT) / len(names)
    parts, below = [_grid(across, up, "block", y, whole=True)], np.zeros(len(names))
    for layer, (kind, values) in enumerate(stacks):
        for i, (name, value) in enumerate(zip(names, values, strict=True)):
            top, foot = up.place(below[i] + value), up.place(below[i])
            parts.append(
                f'<rect x="{across.place(i + 1) - 0.4 * thick:.1f}" y="{top:.1f}" width="{0.8 * thick:.1f}" '
                f'height="{foot - top:.1f}" fill="{colour(layer, len(stacks))}"><title>{escape(name)}, {escape(kind)}: '
                f"{value:,.6g}</title></rect>"
            )
        below = below + np.asarray(values)
    return svg(WIDTH, HEIGHT, title, "".join(parts), (across, up))


def _range(low: float, high: float, log: bool, tight: bool = False) -> tuple[float, float]:
    """A range with a little room, in which no number is at the very edge; it is never empty."""
    if log:
        low, high = math.log10(low), math.log10(high)
    room = (high - low) * (0.0 if tight else 0.05)
    if not high > low:
        room = 0.5 if tight or log else abs(high) * 0.05 or 0.5
    low, high = low - room, high + room
    return (10**low, 10**high) if log else (low, high)


def ticks(low: float, high: float, log: bool = False, least: float = 0) -> list[float]:
    """A few round numbers in a range, no closer than `least`.

    Examples:
      >>> ticks(0, 10), ticks(0.02, 30, log=True)
      ([0, 2, 4, 6, 8, 10], [0.1, 1.0, 10.0])
    """
    if log:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        if last - first >= 1:
            return [10.0**e for e in range(first, last + 1, max(1, (last - first) // 4))]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 5)
    step = max(step, least)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _grid(across: _Axis, up: _Axis, x: str, y: str, whole: bool) -> str:
    """The rules, the numbers at them, and the names of the axes; `whole` says that x counts something."""
    parts = []
    for value in ticks(up.low, up.high, up.log):
        at = up.place(value)
        parts.append(f'<path class="rule" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(text(_LEFT - 4, at + 3, _short(value), "end"))
    for value in ticks(across.low, across.high, least=1 if whole else 0):
        parts.append(text(across.place(value), HEIGHT - _BOTTOM + 13, _short(value), "middle"))
    parts.append(text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5, x, "middle"))
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(f'<g transform="rotate(-90 11 {middle:.0f})">{text(11, middle, y, "middle")}</g>')
    return "".join(parts)


def _short(value: float) -> str:
    """A number at an axis, such as 25k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and size > 1e3):
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _line(line: Line, across: _Axis, up: _Axis, shown: Callable[[float], bool]) -> str:
    """A line, cut where there is no number; a point that has no neighbour is a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if shown(y):
            runs[-1].append((across.place(x), up.place(y)))
        elif runs[-1]:
            runs.append([])
    parts = [f'<g class="line" data-name="{escape(line.name)}"><title>{escape(line.name)}</title>']
    dash = ' stroke-dasharray="4 3"' if line.dashed else ""
    for run in filter(None, runs):
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in run)
        if line.dots or len(run) == 1:
            parts += [f'<circle cx="{x:.2f}" cy="{y:.2f}" r="3" fill="{line.colour}"/>' for x, y in run]
        if not line.dots and len(run) > 1:
            parts.append(f'<polyline points="{points}" stroke="{line.colour}"{dash}/>')
    return "".join([*parts, "</g>"])


def _band(line: Line, across: _Axis, up: _Axis, shown: Callable[[float], bool]) -> str:
    assert line.low is not None and line.high is not None
    edges = [(x, a, b) for x, a, b in zip(line.x, line.low, line.high, strict=True) if shown(a) and shown(b)]
    there = [f"{across.place(x):.2f},{up.place(b):.2f}" for x, _, b in edges]
    back = [f"{across.place(x):.2f},{up.place(a):.2f}" for x, a, _ in reversed(edges)]
    return f'<polygon points="{" ".join(there + back)}" fill="{line.colour}" fill-opacity="0.15"/>' if edges else ""


def text(x: float, y: float, said: str, anchor: str = "start") -> str:
    """Letters at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def svg(width: float, height: float, title: str, content: str, axes: tuple[_Axis, _Axis] | None = None) -> str:
    """The element around what was drawn, with its title for those who cannot see it."""
    ranges = ""
    if axes is not None:
        across, up = axes
        ranges = f' data-x="{_ends(across)}" data-y="{_ends(up)}"' + (' data-log="y"' if up.log else "")
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="--wide:{width:.0f}px" role="img" '
        f'aria-label="{escape(title)}"{ranges}>{content}</svg>'
    )


def _ends(axis: _Axis) -> str:
    """An axis in numbers and in places: `low high first last`."""
    return f"{axis.low:.9g} {axis.high:.9g} {axis.first:g} {axis.last:g}"
