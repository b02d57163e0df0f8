"""Charts as SVG that is drawn here: places in per cent, sizes in pixels, so text keeps its size on any screen. Pure.

Colours are classes of the style sheet. Each chart stands beside a table of the same figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

HEIGHT: Final = 220
_TOP, _BOTTOM = 18, 196
MAX_SERIES: Final = 8
"""Colours that can be told apart; what is left is summed up as `other`."""


@dataclass(frozen=True, slots=True)
class Series:
    """One colour: a value for each slot."""

    name: str
    values: Sequence[int]
    colour: int
    """-1: what is left."""

    @property
    def css(self) -> str:
        """Class of its colour."""
        return "sx" if self.colour < 0 else f"s{self.colour % MAX_SERIES}"


def stacked_bars(title: str, labels: Sequence[str], series: Sequence[Series], words: "Words") -> Markup:
    """Bars over time, one for each label. `labels` that are empty are not drawn."""
    count = max(1, len(labels))
    totals = [sum(line.values[index] for line in series) for index in range(len(labels))]
    top = _nice(max([*totals, 1]), words.step)
    parts = [_grid(top)]
    width = 100 / count
    for index in range(len(labels)):
        base = 0
        for line in series:
            value = line.values[index]
            if value <= 0:
                continue
            low, high = _y(base, top), _y(base + value, top)
            base += value
            parts.append(
                Markup(
                    '<rect class="{}" x="{:.3f}%" y="{:.1f}" width="{:.3f}%" height="{:.1f}"><title>'
                ).format(line.css, index * width + width * 0.1, high, width * 0.8, max(0.6, low - high))
                + Markup("{} {}: {}</title></rect>").format(labels[index], line.name, words.say(value))
            )
    return _svg(title, [*parts, _ticks(top, words), _axis(labels)])


def steps(title: str, points: Sequence[tuple[int, int]], labels: tuple[str, str], words: "Words") -> Markup:
    """A line that rises by steps: (place in millionths, value) in order; `labels` of its two ends."""
    top = _nice(max([*(value for _, value in points), 1]), words.step)
    parts = [_grid(top)]
    before = (0, 0)
    for place, value in [*points, (1_000_000, points[-1][1] if points else 0)]:
        y = _y(before[1], top)
        parts.append(_line(before[0], y, place, y))
        parts.append(_line(place, y, place, _y(value, top)))
        before = (place, value)
    return _svg(title, [*parts, _ticks(top, words), _axis([labels[0], "", labels[1]])])


def budget_bar(spent: int, held: int, limit: int | None, say: "Words") -> Markup:
    """Spent and held against a limit; past it the scale grows, so that the limit's mark stands inside."""
    scale = max(limit or 0, spent + held, 1)
    is_past = limit is not None and spent + held > limit
    near = limit is not None and not is_past and (spent + held) * 10 >= limit * 9
    state = "past" if is_past else "near" if near else "spent"
    title = f"{say.say(spent)} spent, {say.say(held)} held of {say.say(limit) if limit is not None else 'no limit'}"
    bar = Markup('<rect class="track" x="0" y="0" width="100%" height="14"/>')
    bar += Markup('<rect class="{}" x="0" y="0" width="{:.3f}%" height="14"/>').format(
        state, min(100, max(spent, 0) * 100 / scale)
    )
    bar += Markup('<rect class="held" x="{:.3f}%" y="0" width="{:.3f}%" height="14"/>').format(
        max(spent, 0) * 100 / scale, held * 100 / scale
    )
    if limit is not None:
        at = limit * 100 / scale
        bar += Markup('<line class="mark" x1="{0:.3f}%" x2="{0:.3f}%" y1="0" y2="14"/>').format(min(at, 99.6))
    return Markup('<svg class="bar" height="14" width="100%" role="img" aria-label="{}">{}</svg>').format(
        title, bar
    )


def time_bar(start: int, first: int | None, end: int, css: str, title: str) -> Markup:
    """One call in a waterfall: places in millionths; until `first` it waits."""
    wait_until = end if first is None else first
    bar = Markup('<rect class="wait" x="{:.4f}%" y="2" width="{:.4f}%" height="10"/>').format(
        start / 10_000, max(0.3, (wait_until - start) / 10_000)
    )
    if first is not None:
        bar += Markup('<rect class="{}" x="{:.4f}%" y="2" width="{:.4f}%" height="10"/>').format(
            css, first / 10_000, max(0.3, (end - first) / 10_000)
        )
    return Markup('<svg class="bar" height="14" width="100%" role="img" aria-label="{}">{}</svg>').format(
        title, bar
    )


def share_bar(value: int, total: int, colour: int, title: str) -> Markup:
    """A part of a whole."""
    width = value * 100 / total if total else 0
    return Markup(
        '<svg class="bar" height="14" width="100%" role="img" aria-label="{}"><rect class="s{}" x="0" y="2"'
        ' width="{:.3f}%" height="10"/></svg>'
    ).format(title, colour, width)


@dataclass(frozen=True, slots=True)
class Words:
    """How values are said: amounts in nanos, or counts."""

    is_money: bool

    @property
    def step(self) -> int:
        """The smallest top of a scale."""
        return 1_000 if self.is_money else 1

    def say(self, value: int) -> str:
        """A value for people, exact."""
        if not self.is_money:
            return f"{value:,}"
        sign, amount = ("-" if value < 0 else ""), abs(value)
        digits = f"{amount % 10**9:09d}".rstrip("0").ljust(2, "0")
        return f"{sign}${amount // 10**9:,}.{digits}"


MONEY: Final = Words(is_money=True)
COUNT: Final = Words(is_money=False)


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart" width="100%" height="{}" role="img" aria-label="{}">{}</svg>').format(
        HEIGHT, title, Markup("").join(parts)
    )


def _y(value: int, top: int) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * value / top


def _line(x1: int, y1: float, x2: int, y2: float) -> Markup:
    return Markup('<line class="step" x1="{:.4f}%" y1="{:.1f}" x2="{:.4f}%" y2="{:.1f}"/>').format(
        x1 / 10_000, y1, x2 / 10_000, y2
    )


def _grid(top: int) -> Markup:
    line = Markup('<line class="grid" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>')
    return Markup("").join(line.format(_y(value, top)) for value in (0, top // 2, top))


def _ticks(top: int, words: Words) -> Markup:
    """Values of the grid, over what is drawn there."""
    text = Markup('<text class="tick" x="0" y="{:.1f}">{}</text>')
    return Markup("").join(text.format(_y(value, top) - 4, words.say(value)) for value in (top // 2, top))


def _axis(labels: Sequence[str]) -> Markup:
    count = len(labels)
    if not count:
        return Markup("")
    wanted = sorted({0, count // 3, 2 * count // 3, count - 1})
    found = Markup("")
    for index in wanted:
        if not labels[index]:
            continue
        anchor = "start" if index == 0 else "end" if index == count - 1 else "middle"
        place = 0 if index == 0 else 100 if index == count - 1 else (index + 0.5) * 100 / count
        found += Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="{}">{}</text>').format(
            place, HEIGHT - 6, anchor, escape(labels[index])
        )
    return found


def _nice(value: int, step: int) -> int:
    """A round number that is not below `value`; half of it is round, too. `step` is the least."""
    size = step
    while True:
        for tenths in (10, 12, 16, 20, 30, 40, 50, 60, 80, 100):
            top = size * tenths // 10
            if top >= value and top % 2 == 0 and size * tenths % 10 == 0:
                return top
        size *= 10
