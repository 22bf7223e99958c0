"""Plots as inline SVG. Law: colours are the page's own, by name; every letter is escaped; drawn in the pixels of a phone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from app.evaluation.table import percent
from app.figures import Bin

WIDE = 330
"""Units across a plot: so many pixels a phone has, and its letters stay readable there."""


class Bar(NamedTuple):
    """`weak` holds `strong`; the whisker goes from `share` to `bound`."""

    label: str
    figure: str
    weak: float
    strong: float
    share: float
    bound: float


def end(rows: Iterable[Bar]) -> float:
    """Of an axis of shares that are small."""
    highest = max((max(bar.bound, bar.weak) for bar in rows), default=0.0)
    return next(end for end in (0.05, 0.1, 0.2, 0.4, 0.6, 1.0) if highest <= end)


def bars(rows: Sequence[Bar], tone: str, top: float, mark: float | None, title: str) -> str:
    """Horizontal bars, what they are above each, as on a phone there is no room beside."""
    step, tall, left, across = 36, 10, 2, WIDE - 4
    height = step * len(rows) + 16

    def x(value: float) -> float:
        return left + across * min(value, top) / top

    drawn = []
    for row, bar in enumerate(rows):
        y = row * step + 16
        from_, to = sorted((x(bar.share), x(bar.bound)))
        drawn += [
            _text(left, y - 4, _fitting(bar.label, across - _length(bar.figure) - 8)),
            _text(WIDE - 2, y - 4, bar.figure, anchor="end"),
            _rect(left, y, across, tall, "var(--line)", ' opacity=".45"'),
            _rect(left, y, x(bar.weak) - left, tall, f"var(--{tone})", ' opacity=".45"'),
            _rect(left, y, x(bar.strong) - left, tall, f"var(--{tone})"),
            f'<path d="M{from_:.1f} {y + tall / 2}H{to:.1f}M{x(bar.bound):.1f} {y + 1}v{tall - 2}" stroke="var(--text)" fill="none"/>',
        ]
        if mark is not None:
            drawn.append(
                f'<path d="M{x(mark):.1f} {y}v{tall + 3}" stroke="var(--failed)" stroke-width="1.5" stroke-dasharray="3 2"/>'
            )
    for tick, anchor in ((0.0, "start"), (top / 2, "middle"), (top, "end")):
        drawn.append(_text(x(tick), height - 4, f"{tick:.0%}" if top >= 0.1 else f"{tick:.1%}", "soft", anchor))
    return _svg(height, title, "".join(drawn))


def _length(said: str) -> float:
    """About how wide letters of a plot are."""
    return sum(11.0 if c >= "\u2e80" else 6.6 for c in said)


def _fitting(said: str, width: float) -> str:
    """As much of a label as there is room for: all, what stands before its last word, or its beginning."""
    if _length(said) <= width:
        return said
    short = said.rpartition(" ")[0] or said
    if _length(short) <= width:
        return short
    while short and _length(short) > width - 11:
        short = short[:-1]
    return short + "…"


def curve(points: Sequence[Bin]) -> str:
    """Scores against what they should be, from the lowest bin to the highest."""
    side, left, top = 280, 34, 8
    most_texts = max(bin.texts for bin in points)

    def at(score: float, share: float) -> tuple[float, float]:
        return left + side * score, top + side * (1 - share)

    drawn = [f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="var(--line)"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = at(tick, tick)
        drawn += [
            _text(x, top + side + 14, f"{tick:g}", "soft", "middle"),
            _text(left - 5, y + 4, f"{tick:.0%}", "soft", "end"),
            f'<path d="M{x:.1f} {top}V{top + side}M{left} {y:.1f}H{left + side}" stroke="var(--line)" opacity=".5"/>',
        ]
    drawn.append(
        f'<path d="M{left} {top + side}L{left + side} {top}" stroke="var(--soft)" stroke-dasharray="4 4" fill="none"/>'
    )
    places = [at(score, share) for score, share, _ in points]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    drawn.append(f'<path d="M{line}" stroke="var(--good)" stroke-width="1.5" fill="none"/>')
    for (x, y), (score, share, texts) in zip(places, points, strict=True):
        radius = 3 + 7 * math.sqrt(texts / most_texts)
        said = f"{score:.2f} → {share:.0%}, {texts} 条 texts"
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="var(--good)" fill-opacity=".6" stroke="var(--good)">'
            f"<title>{said}</title></circle>"
        )
    return _svg(top + side + 22, "校准曲线 Calibration curve", "".join(drawn))


def histograms(scores: Mapping[str, Sequence[int]]) -> str:
    """The two labels back to back over one axis, each as shares of its own texts."""
    left, across, tall, middle = 4, WIDE - 8, 120, 134
    shares = {label: [n / (sum(counts) or 1) for n in counts] for label, counts in scores.items()}
    highest = max(max(values) for values in shares.values()) or 1.0
    bins = len(scores["violating"])
    width = across / bins
    drawn = []
    for label, fill, up in (("violating", "var(--good)", True), ("harmless", "var(--bad)", False)):
        for at, value in enumerate(shares[label]):
            height = tall * value / highest
            y = middle - 1 - height if up else middle + 15
            said = f"{at / bins:.2f}–{(at + 1) / bins:.2f}: {scores[label][at]} 条 texts"
            drawn.append(_rect(left + at * width + 0.5, y, width - 1, height, fill, "", said))
    for tick, anchor in ((0, "start"), (0.2, "middle"), (0.4, "middle"), (0.6, "middle"), (0.8, "middle"), (1, "end")):
        drawn.append(_text(left + across * tick, middle + 10, f"{tick:g}", "soft", anchor))
    for label, word, y in (("violating", "违规 violating", 12), ("harmless", "无害 harmless", middle + tall + 27)):
        said = f"{word}: {sum(scores[label])} 条 texts, 最高 highest {percent(max(shares[label]))}"
        drawn.append(_text(left, y, said))
    return _svg(middle + tall + 34, "分数分布 Scores by label", "".join(drawn))


def _svg(height: float, title: str, drawn: str) -> str:
    return f'<svg viewBox="0 0 {WIDE} {height}" role="img" xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>{drawn}</svg>'


def _rect(x: float, y: float, width: float, height: float, fill: str, more: str = "", said: str = "") -> str:
    title = f"<title>{escape(said)}</title>" if said else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" rx="1.5" fill="{fill}"{more}>{title}</rect>'


def _text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(said)}</text>'
