"""The timeline of a replay: in the terminal, and as an SVG."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from html import escape

from ..output import styled
from ..words import count, span
from .replay import Replay, Timeline

#: Marks of a row that is all admitted, all denied; and where the output is ASCII.
_MARKS = ("█", "░")
_ASCII = ("#", "-")


def _marks() -> tuple[str, str]:
    try:
        "".join(_MARKS).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _MARKS


def _rows(number: int, largest: int, height: int) -> int:
    """Rows that stand for a number: none for none, at least one for some."""
    if number == 0:
        return 0
    return max(1, round(number * height / largest))


def drawn(timeline: Timeline, width: int, height: int = 8) -> list[str]:
    """Columns of admitted requests with the denied ones on top, as lines of text."""
    narrow = timeline.narrowed(max(8, width - 12))
    bars = narrow.filled()
    if not bars:
        return []
    largest = max(admitted + denied for _, admitted, denied in bars)
    admitted_mark, denied_mark = _marks()
    columns = []
    for _, admitted, denied in bars:
        above = _rows(denied, largest, height)
        below = _rows(admitted, largest, height)
        below = max(min(below, height - above), 1 if admitted else 0)
        above = min(above, height - below)
        columns.append([1] * below + [2] * above)
    lines = []
    for row in reversed(range(height)):
        label = count(largest) if row == height - 1 else ""
        line = ""
        for column in columns:
            kind = column[row] if row < len(column) else 0
            line += ("", styled(admitted_mark, "good"), styled(denied_mark, "bad"))[kind] or " "
        lines.append(f"{label:>9} {line}".rstrip())
    lines.append(f"{'0':>9} {_axis(bars, narrow)}")
    lines.append(
        f"{'':>9} {styled(admitted_mark, 'good')} admitted  {styled(denied_mark, 'bad')} denied, "
        f"in each {span(narrow.interval / 1e6)}"
    )
    return lines


def _clock(seconds: float, whole: float) -> str:
    form = "%H:%M:%S" if whole < 86400 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(seconds))


def _axis(bars: Sequence[tuple[float, int, int]], timeline: Timeline) -> str:
    """The first moment and the last one below their columns."""
    length = timeline.interval / 1e6
    whole = bars[-1][0] + length - bars[0][0]
    first, last = _clock(bars[0][0], whole), _clock(bars[-1][0] + length, whole)
    return f"{first} {last.rjust(len(bars) - len(first) - 1)}"


# ------------------------------------------------------------------------------------------- SVG

_WIDTH, _HEIGHT, _LEFT, _TOP = 960, 150, 70, 56

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #222 } .big { font-weight: 600; font-size: 15px }
.dim { fill: #666 } .a { fill: #2f855a } .d { fill: #c53030 } .axis { stroke: #999 }
.back { fill: #fff }
@media (prefers-color-scheme: dark) {
  text { fill: #eee } .dim { fill: #aaa } .a { fill: #48bb78 } .d { fill: #fc8181 }
  .back { fill: #1a202c }
}"""


def svg(replays: Sequence[Replay], title: str) -> str:
    """The timelines below one another; needs nothing from elsewhere."""
    panel = _HEIGHT + 62
    height = _TOP + panel * len(replays)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{_WIDTH}" height="{height}"/>',
        f'<text class="big" x="16" y="26">{escape(title)}</text>',
        '<rect class="a" x="16" y="37" width="10" height="10"/><text x="32" y="47">admitted</text>',
        '<rect class="d" x="104" y="37" width="10" height="10"/><text x="120" y="47">denied</text>',
    ]
    for number, replay in enumerate(replays):
        parts += _panel(replay, _TOP + number * panel)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _panel(replay: Replay, top: int) -> list[str]:
    timeline = replay.timeline.narrowed(240)
    bars = timeline.filled()
    base = top + 24 + _HEIGHT
    heading = (
        f"{replay.name}: {count(replay.admitted)} admitted, {count(replay.denied)} denied, "
        f"in each {span(timeline.interval / 1e6)}"
    )
    parts = [f'<text x="{_LEFT}" y="{top + 16}">{escape(heading)}</text>']
    if not bars:
        return parts
    largest = max(admitted + denied for _, admitted, denied in bars)
    step = (_WIDTH - _LEFT - 16) / len(bars)
    for place, (_, admitted, denied) in enumerate(bars):
        left, thick = _LEFT + place * step, max(step - 0.6, step * 0.85)
        edge = float(base)
        for name, number in (("a", admitted), ("d", denied)):
            if number:
                tall = max(number * _HEIGHT / largest, 1.0)
                edge -= tall
                parts.append(
                    f'<rect class="{name}" x="{left:.2f}" y="{edge:.2f}" width="{thick:.2f}" '
                    f'height="{tall:.2f}"/>'
                )
    length = timeline.interval / 1e6
    whole = bars[-1][0] + length - bars[0][0]
    right = _WIDTH - 16
    parts += [
        f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{right}" y2="{base}"/>',
        f'<text class="dim" x="{_LEFT - 8}" y="{base - _HEIGHT + 12}" text-anchor="end">'
        f"{count(largest)}</text>",
        f'<text class="dim" x="{_LEFT - 8}" y="{base}" text-anchor="end">0</text>',
        f'<text class="dim" x="{_LEFT}" y="{base + 18}">{_clock(bars[0][0], whole)}</text>',
        f'<text class="dim" x="{right}" y="{base + 18}" text-anchor="end">'
        f"{_clock(bars[-1][0] + length, whole)}</text>",
    ]
    return parts
