"""
Ratios as a picture: one line per row, drawn as SVG by hand.

The thick bar spans the quartiles, the thin line all rounds, the notch is the median; the
dashed rule stands at 1 and the small triangle at the target. The picture brings its own
background and follows the reader's choice of light or dark.
"""

import math
import re
from collections.abc import Sequence
from html import escape

import attrs

from benchmarks._kit.rows import Row

WIDTH = 760
LABELS = 300
"""Where the scale begins."""
RIGHT = WIDTH - 92
"""Where it ends; the verdict stands beyond."""
LINE = 34
TOP = 74

STYLE = """
  .ground { fill: #ffffff; } text { fill: #1f2328; }
  .faint { fill: #59636e; } .rule { stroke: #d1d9e0; } .one { stroke: #59636e; }
  .met { fill: #1a7f5a; stroke: #1a7f5a; } .missed { fill: #c2410c; stroke: #c2410c; }
  .free { fill: #4f6b95; stroke: #4f6b95; } .notch { stroke: #ffffff; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #15191f; } text { fill: #e6edf3; }
    .faint { fill: #9aa4af; } .rule { stroke: #303842; } .one { stroke: #9aa4af; }
    .met { fill: #3fbf8f; stroke: #3fbf8f; } .missed { fill: #f0834a; stroke: #f0834a; }
    .free { fill: #8aa6d1; stroke: #8aa6d1; } .notch { stroke: #15191f; }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .title { font-size: 15px; font-weight: 600; } .small { font-size: 11px; }
  .figure { font-weight: 600; font-variant-numeric: tabular-nums; }
"""


@attrs.frozen
class Scale:
    """Ratios on a logarithmic scale: twice as fast is as far from 1 as half as fast."""

    low: float
    high: float

    @classmethod
    def over(cls, figures: Sequence[float]) -> "Scale":
        """Return a scale from power of two to power of two with all *figures* and 1 in it."""
        steps = [math.log2(figure) for figure in (*figures, 1.0)]
        low, high = math.floor(min(steps)), math.ceil(max(steps))
        return cls(low, max(high, low + 1))

    def x(self, figure: float) -> float:
        """Return where *figure* stands."""
        share = (math.log2(figure) - self.low) / (self.high - self.low)
        return round(LABELS + share * (RIGHT - LABELS), 1)

    def ticks(self) -> list[float]:
        """Return the powers of two on the scale."""
        return [2.0**step for step in range(int(self.low), int(self.high) + 1)]


def ratio_plot(title: str, rows: Sequence[Row]) -> str | None:
    """Return the picture of those of *rows* that have a ratio with its spread; None if none has."""
    shown = [row for row in rows if {"ratio", "q1", "q3", "min", "max"} <= row.keys()]
    if not shown:
        return None
    bounds = [bound for row in shown if (bound := _bound(row)) is not None]
    scale = Scale.over([row[key] for row in shown for key in ("min", "max")] + bounds)
    bottom = TOP + LINE * len(shown)
    height = bottom + 30
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img">'
        ),
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="18" y="28">{escape(title)}</text>',
        (
            '<text class="faint small" x="18" y="47">Ratio of each round: bar, quartiles; '
            "line, all rounds; notch, median; triangle, target. Logarithmic.</text>"
        ),
        *(_tick(scale.x(tick), tick, bottom) for tick in scale.ticks()),
        *(_line(row, scale, TOP + LINE * (number + 0.5)) for number, row in enumerate(shown)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _tick(x: float, figure: float, bottom: float) -> str:
    kind = 'class="one" stroke-dasharray="3 3"' if figure == 1 else 'class="rule"'
    return (
        f'<line {kind} x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{bottom + 4}"/>'
        f'<text class="faint small" x="{x}" y="{bottom + 19}" text-anchor="middle">'
        f"{figure:g}</text>"
    )


def _line(row: Row, scale: Scale, y: float) -> str:
    low, q1, ratio, q3, high = (scale.x(row[key]) for key in ("min", "q1", "ratio", "q3", "max"))
    kind = {True: "met", False: "missed", None: "free"}[row.get("met")]
    bound = _bound(row)
    target = ""
    if bound is not None:
        x = scale.x(bound)
        target = f'<path class="{kind}" d="M{x - 4} {y - 15}h8l-4 6z" stroke="none"/>'
    return (
        f'<text x="18" y="{y + 4}">{escape(str(row["case"]))}</text>'
        f'<line class="{kind}" x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke-width="1.5"/>'
        f'<rect class="{kind}" x="{q1}" y="{y - 6}" width="{max(3, q3 - q1):.1f}" height="12" '
        'rx="2" stroke="none"/>'
        f'<line class="notch" x1="{ratio}" x2="{ratio}" y1="{y - 6}" y2="{y + 6}" '
        'stroke-width="2"/>'
        f"{target}"
        f'<text class="figure" x="{WIDTH - 18}" y="{y + 4}" text-anchor="end">'
        f"{row['ratio']:.2f}\u00d7</text>"
    )


def _bound(row: Row) -> float | None:
    """Return the number in a row's target."""
    found = re.match(r"[<>]= ([\d.]+)", str(row.get("target", "")))
    return float(found[1]) if found and float(found[1]) > 0 else None
