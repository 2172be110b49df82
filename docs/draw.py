"""Draws the timelines of the manual by running Weir's own strategies over given moments.

Usage: ``python docs/draw.py`` writes ``docs/pictures/*.svg``; a test compares them with what it
would write now, so that no picture shows what the code does not do.

Each picture carries its own colours for both colour schemes. Where the manual puts one into a page,
the theme's colours take their place (``docs/_static/weir.css``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import weir
from weir._core import STRATEGIES

PICTURES = Path(__file__).resolve().parent / "pictures"

#: The moment that the pictures call 0 s: a multiple of every window drawn here.
START = 1_800_000_000
STEP = 0.25  # seconds between two samples of the level

LEFT, RIGHT, WIDTH = 14, 546, 560

STYLE = """
.weir-picture{--ink:var(--color-foreground-primary,#1f2328);
--dim:var(--color-foreground-secondary,#59636e);--grid:var(--color-background-border,#d1d9e0);
--pass:var(--weir-pass,#0a7a52);--deny:var(--weir-deny,#c02f1d);
font:13px system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
.weir-picture text{fill:var(--ink)}
.weir-picture .dim{fill:var(--dim)}
.weir-picture .grid{stroke:var(--grid);fill:none}
.weir-picture .edge{stroke:var(--dim);stroke-dasharray:3 3;fill:none}
.weir-picture .line{stroke:var(--pass);stroke-width:2;fill:none}
.weir-picture .area{fill:var(--pass);opacity:.14}
.weir-picture .pass{fill:var(--pass);stroke:none}
.weir-picture .thin{stroke:var(--pass);stroke-width:1.5;fill:none}
.weir-picture .deny{stroke:var(--deny);stroke-width:2.4;fill:none}
.weir-picture .hint{stroke:var(--deny);stroke-width:1.3;fill:none;stroke-dasharray:4 3}
.weir-picture .denied{fill:var(--deny)}
@media(prefers-color-scheme:dark){svg.weir-picture:root{--ink:#e6edf3;--dim:#9198a1;--grid:#3d444d;
--pass:#4ac28b;--deny:#ff8272}}
""".strip().replace("\n", "")


@dataclass(frozen=True)
class Hit:
    """One request and its verdict."""

    at: float
    verdict: weir.Verdict


def play(
    limit: weir.Limit, moments: list[float], end: float
) -> tuple[list[Hit], list[tuple[float, weir.Verdict]]]:
    """Run the strategy: the verdict of each hit, and the level over time."""
    table = weir.Table("memory://?keys=8")
    hits, stands = [], []
    todo = sorted(moments)

    def decide(moment: float, cost: int, mode: int) -> weir.Verdict:
        return table.decide([limit], "client", [cost], mode, START + moment)[0]

    for index in range(int(end / STEP) + 1):
        now = index * STEP
        while todo and todo[0] <= now:
            moment = todo.pop(0)
            hits.append(Hit(moment, decide(moment, 1, weir.HIT)))
            stands.append((moment, decide(moment, 0, weir.TEST)))
        stands.append((now, decide(now, 0, weir.TEST)))
    return hits, stands


# ---------------------------------------------------------------------------------------- drawing


class Drawing:
    """An SVG that is being drawn. x is time, from 0 to ``end`` seconds."""

    def __init__(self, name: str, title: str, description: str, end: float, height: int) -> None:
        self.name, self.title, self.description = name, title, description
        self.end, self.height = end, height
        self.parts: list[str] = []

    def x(self, seconds: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * seconds / self.end, 1)

    def add(self, part: str) -> None:
        self.parts.append(part)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        kind = f' class="{kind}"' if kind else ""
        self.add(f'<text x="{x:g}" y="{y:g}"{kind} text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.add(f'<path class="{kind}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>')

    def axis(self, y: float, every: int) -> None:
        self.line(LEFT, y, RIGHT, y, "grid")
        for second in range(0, int(self.end) + 1, every):
            x = self.x(second)
            self.line(x, y, x, y + 4, "grid")
            anchor = "start" if second == 0 else "end" if x > RIGHT - 12 else "middle"
            self.text(x, y + 18, f"{second} s", "dim", anchor)

    def hit(self, hit: Hit, y: float, radius: float = 5) -> None:
        x = self.x(hit.at)
        if hit.verdict.allowed:
            self.add(f'<circle class="pass" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>')
        else:
            r = radius * 0.85
            self.add(
                f'<path class="deny" d="M{x - r:g} {y - r:g}L{x + r:g} {y + r:g}'
                f'M{x - r:g} {y + r:g}L{x + r:g} {y - r:g}"/>'
            )

    def curve(self, points: list[tuple[float, float]], floor: float) -> None:
        """A line through the points (in pixels), and the area under it."""
        path = " ".join(f"{x:g} {y:g}" for x, y in points)
        self.add(
            f'<path class="area" d="M{points[0][0]:g} {floor:g} L{path} {points[-1][0]:g} '
            f'{floor:g}Z"/>'
        )
        self.add(f'<path class="line" d="M{path}"/>')

    def svg(self) -> str:
        name = self.name
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="weir-picture" role="img" '
            f'viewBox="0 0 {WIDTH} {self.height}" aria-labelledby="{name}-title {name}-desc">\n'
            f'<title id="{name}-title">{escape(self.title)}</title>\n'
            f'<desc id="{name}-desc">{escape(self.description)}</desc>\n'
            f"<style>{STYLE}</style>\n" + "\n".join(self.parts) + "\n</svg>\n"
        )


def described(hits: list[Hit]) -> str:
    """The picture in words."""
    words = []
    for hit in hits:
        what = "passes" if hit.verdict.allowed else "is denied"
        if hit.verdict.delay:
            what += f" after waiting {hit.verdict.delay:g} s"
        words.append(f"{hit.at:g} s {what}")
    return "Requests: " + "; ".join(words) + "."


def simplified(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Remove points on the straight line between their neighbours."""
    kept = points[:1]
    for point, after in pairwise(points[1:]):
        (x0, y0), (x, y), (x1, y1) = kept[-1], point, after
        steep = x1 - x0 == 0
        straight = x == x0 if steep else abs(y0 + (y1 - y0) * (x - x0) / (x1 - x0) - y) < 0.15
        if not straight:
            kept.append(point)
    return kept + points[-1:]


# ------------------------------------------------------------------------------ one strategy each

#: The requests of every picture of a strategy, in seconds, under three per minute.
MOMENTS: list[float] = [0, 40, 50, 55, 62, 65, 70, 90, 101, 125]
PERIOD = 60

Level = Callable[[float, weir.Verdict], float]


def timeline(
    name: str,
    limit: weir.Limit,
    caption: str,
    level: Level,
    top: float,
    line: tuple[float, str],
    end: float = 135,
    extra: Callable[[Drawing, list[Hit], float], float] | None = None,
) -> Drawing:
    """The requests of one client above, and the state of the strategy below."""
    hits, stands = play(limit, MOMENTS, end)
    drawing = Drawing(name, f"{name}: {limit}", described(hits), end, 0)
    lane = 34
    drawing.text(LEFT, 14, "requests:")
    drawing.add(f'<circle class="pass" cx="{LEFT + 72}" cy="10" r="5"/>')
    drawing.text(LEFT + 82, 14, "admitted")
    drawing.add('<path class="deny" d="M168 6L176 14M168 14L176 6"/>')
    drawing.text(182, 14, "denied")

    base = extra(drawing, hits, lane) if extra else lane + 16
    retry_after(drawing, hits, base + 12)
    head, floor = base + 54, base + 130
    drawing.text(LEFT, head - 12, caption)

    def y(value: float) -> float:
        return round(floor - (floor - head) * value / top, 1)

    points = simplified([(drawing.x(at), y(level(at + START, v))) for at, v in stands])
    drawing.curve(points, floor)
    drawing.line(LEFT, y(line[0]), RIGHT, y(line[0]), "edge")
    drawing.text(RIGHT, head - 12, line[1], "dim", "end")
    drawing.axis(floor, 20)
    for hit in hits:
        drawing.hit(hit, lane)
    drawing.height = int(floor + 26)
    return drawing


def retry_after(drawing: Drawing, hits: list[Hit], y: float) -> None:
    """The first denied request's retry_after: from it to the moment at which it would pass."""
    hit = next(hit for hit in hits if not hit.verdict.allowed)
    start, until = drawing.x(hit.at), drawing.x(hit.at + hit.verdict.retry_after)
    drawing.add(
        f'<path class="hint" d="M{start:g} {y - 10:g}V{y:g}H{until:g}"/>'
        f'<path class="deny" d="M{until - 5:g} {y - 4:g}L{until:g} {y:g}L{until - 5:g} {y + 4:g}"/>'
    )
    drawing.text(until + 6, y + 4, f"retry_after {hit.verdict.retry_after:g} s", "denied")


def counted(limit: weir.Limit) -> Level:
    return lambda now, verdict: limit.amount - verdict.remaining


def windows_of_hits(drawing: Drawing, hits: list[Hit], lane: float) -> float:
    """Fixed window: from the hit that opened it to its end."""
    y, ends = lane + 16, 0.0
    for hit in hits:
        if hit.verdict.allowed and hit.verdict.reset_at != ends:
            ends = hit.verdict.reset_at
            bar(drawing, hit.at, ends - START, y, "window")
    return y + 14


def bar(drawing: Drawing, start: float, end: float, y: float, text: str) -> None:
    left, right = drawing.x(start), min(drawing.x(end), RIGHT)
    drawing.add(f'<path class="thin" d="M{left:g} {y - 4:g}V{y + 4:g}M{left:g} {y:g}H{right:g}"/>')
    if drawing.x(end) <= RIGHT:
        drawing.add(f'<path class="thin" d="M{right:g} {y - 4:g}V{y + 4:g}"/>')
    if right - left > 60:
        drawing.text(left + 6, y + 15, text, "dim")


def aligned_windows(drawing: Drawing, hits: list[Hit], lane: float) -> float:
    y = lane + 16
    for index, start in enumerate(range(0, int(drawing.end), PERIOD)):
        bar(drawing, start, start + PERIOD, y, f"minute {index + 1}")
    return y + 14


def life_of_hits(drawing: Drawing, hits: list[Hit], lane: float) -> float:
    """Moving window: each admitted hit counts for one period."""
    y = lane + 16
    for hit in hits:
        if hit.verdict.allowed:
            left, right = drawing.x(hit.at), min(drawing.x(hit.at + PERIOD), RIGHT)
            drawing.add(
                f'<circle class="pass" cx="{left:g}" cy="{y:g}" r="2.5"/>'
                f'<path class="thin" d="M{left:g} {y:g}H{right:g}"/>'
            )
            y += 7
    return y + 4


def departures(drawing: Drawing, hits: list[Hit], lane: float) -> float:
    """Leaky bucket: when each request leaves."""
    y = lane + 40
    for hit in hits:
        if hit.verdict.allowed:
            x, leaves = drawing.x(hit.at), drawing.x(hit.at + hit.verdict.delay)
            drawing.add(
                f'<path class="thin" d="M{x:g} {lane + 6:g}L{leaves:g} {y - 5:g}"/>'
                f'<circle class="pass" cx="{leaves:g}" cy="{y:g}" r="4"/>'
            )
    drawing.text(LEFT, y + 18, "leave the bucket")
    return y + 26


def tokens_left(limit: weir.Limit) -> Level:
    return lambda now, verdict: limit.amount - (verdict.reset_at - now) * limit.amount / PERIOD


def wait(limit: weir.Limit) -> Level:
    return lambda now, verdict: max(0.0, verdict.reset_at - now)


class Style(NamedTuple):
    """How a shape of strategies is drawn."""

    caption: str
    level: Callable[[weir.Limit], Level] = counted
    top: float = 3
    line: tuple[float, str] = (3, "- - limit: 3")
    extra: Any = None
    end: float = 135
    options: dict[str, float] = {}  # noqa: RUF012


#: By the shape of a strategy's row (include/weir/strategies.h).
STYLES = {
    "opened": Style("hits counted in the open window", extra=windows_of_hits),
    "moving": Style("hits of the last 60 s", extra=life_of_hits),
    "weighed": Style(
        "this minute's hits + the last one's share, rounded up", extra=aligned_windows
    ),
    "bucket": Style("tokens in the bucket", tokens_left, line=(3, "- - full: 3")),
    "queue": Style(
        "how long the next request would wait", wait, 40, (20, "- - max_delay: 20 s"),
        departures, 145, {"max_delay": 20.0},
    ),
    "aligned": Style("hits counted since the full minute", extra=aligned_windows),
}  # fmt: skip


def strategies() -> list[Drawing]:
    drawn = []
    for name, (_, shape, *_) in STRATEGIES.items():
        style = STYLES[shape]
        limit = weir.parse("3 per minute").replace(strategy=name, **style.options)  # type: ignore[arg-type]
        level = style.level(limit)
        drawn.append(
            timeline(
                name, limit, style.caption, level, style.top, style.line, end=style.end,
                extra=style.extra,
            )
        )  # fmt: skip
    return drawn


# -------------------------------------------------------------------------------- all beside each


def comparison() -> Drawing:
    """One request, and later one every two seconds, under all strategies."""
    limit = weir.parse("6 per minute")
    moments = [0.0, *(float(second) for second in range(50, 180, 2))]
    drawing = Drawing("compare", "The strategies, and one impatient client", "", 180, 0)
    words = []
    y = 16.0
    for strategy in weir.strategies.STRATEGIES:
        hits, _ = play(limit.replace(strategy=strategy), moments, 180)
        admitted = [hit.at for hit in hits if hit.verdict.allowed]
        words.append(f"{strategy} admits at " + ", ".join(f"{at:g}" for at in admitted) + " s.")
        drawing.text(LEFT, y, f"{strategy}: {len(admitted)} admitted")
        drawing.line(LEFT, y + 15, RIGHT, y + 15, "grid")
        for hit in hits:
            if hit.verdict.allowed:
                drawing.hit(hit, y + 15, 4)
            else:
                x = drawing.x(hit.at)
                drawing.line(x, y + 12, x, y + 18, "hint")
        y += 44
    drawing.axis(y - 8, 30)
    drawing.height = int(y + 16)
    drawing.description = (
        "6 per minute; requests at 0 s and every 2 s from 50 s to 178 s. " + " ".join(words)
    )
    return drawing


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    return {f"{drawing.name}.svg": drawing.svg() for drawing in [*strategies(), comparison()]}


def main() -> int:
    PICTURES.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (PICTURES / name).write_text(svg)
        print(f"docs/pictures/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
