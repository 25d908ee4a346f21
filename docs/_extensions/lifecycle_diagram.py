"""Draws a lifecycle table as SVG: the arrows come from the table, only the places are ours."""

import enum
import math
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, TypeAlias

import attrs

from csjd import DispatcherState, DispatcherStep, JobState, JobStep

State: TypeAlias = enum.Enum
Table: TypeAlias = Mapping[Any, Mapping[Any, Any]]  # of enums; a mapping's keys do not vary
Point: TypeAlias = tuple[float, float]

WIDTH, HEIGHT = 116.0, 40.0  # of a box
_BOW = 0.13  # how far an arrow bends, as a share of its length
_NAMED_AT = 0.34  # of an arrow's way: nearer to its start, where no other name is
_ROOM = 6.0  # between an arrow's head and the box


@attrs.frozen(kw_only=True)
class Layout:
    """Where a table's states are drawn."""

    size: Point
    centres: Mapping[State, Point]
    ends: frozenset[State]
    """Drawn with a bold frame."""
    quiet: frozenset[enum.Enum] = frozenset()
    """Steps that lead from so many states that their arrows are dashed and not named."""


JOB_LAYOUT = Layout(
    size=(900, 500),
    centres={
        JobState.WAITING: (75, 60),
        JobState.PARKED: (75, 260),
        JobState.READY: (300, 160),
        JobState.SCHEDULED: (300, 350),
        JobState.RUNNING: (570, 160),
        JobState.DETACHED: (570, 350),
        JobState.SUCCEEDED: (825, 60),
        JobState.FAILED: (825, 245),
        JobState.CANCELLED: (435, 470),
    },
    ends=frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    quiet=frozenset({JobStep.CANCEL}),
)

DISPATCHER_LAYOUT = Layout(
    size=(760, 250),
    centres={
        DispatcherState.NEW: (70, 60),
        DispatcherState.RUNNING: (270, 60),
        DispatcherState.STOPPING: (480, 60),
        DispatcherState.STOPPED: (690, 60),
        DispatcherState.CLOSED: (380, 215),
    },
    ends=frozenset({DispatcherState.CLOSED}),
    quiet=frozenset({DispatcherStep.CLOSE}),
)


def draw(table: Table, layout: Layout, title: str) -> str:
    """
    Return *table* as an SVG element.

    Raises:
        KeyError: A state of the table has no place in *layout*.
    """
    width, height = layout.size
    box = f"0 0 {width:g} {height:g}"
    parts = [
        f'<svg class="lifecycle" viewBox="{box}" role="img" aria-label="{escape(title)}">',
        *(_arrow(step, source, target, layout) for step, source, target in arrows(table)),
        *(_label(ends, steps, layout) for ends, steps in _named(table, layout).items()),
        *(_box(state, centre, layout) for state, centre in layout.centres.items()),
        "</svg>",
    ]
    return "\n".join(parts)


def arrows(table: Table) -> Iterator[tuple[enum.Enum, State, State]]:
    """Yield each step, from, to of *table*, without those that change nothing."""
    for step, row in table.items():
        for source, target in row.items():
            if source is not target:
                yield step, source, target


def _named(table: Table, layout: Layout) -> dict[tuple[State, State], list[enum.Enum]]:
    """Return the steps to name at each arrow."""
    named: dict[tuple[State, State], list[enum.Enum]] = {}
    for step, source, target in arrows(table):
        if step not in layout.quiet:
            named.setdefault((source, target), []).append(step)
    return named


def _box(state: State, centre: Point, layout: Layout) -> str:
    x, y = centre
    kind = "state end" if state in layout.ends else "state"
    return (
        f'<g class="{kind}" data-state="{state.name}">'
        f'<rect class="box" x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}"'
        f' width="{WIDTH:g}" height="{HEIGHT:g}" rx="8"/>'
        f'<text x="{x:g}" y="{y + 5:g}">{state.name.lower()}</text></g>'
    )


def _arrow(step: enum.Enum, source: State, target: State, layout: Layout) -> str:
    start, bend, end = _curve(layout.centres[source], layout.centres[target])
    tip = _edge_point(end, bend, _ROOM)
    tail = _edge_point(start, bend, 0)
    kind = "quiet" if step in layout.quiet else "step"
    return (
        f'<g class="{kind}" data-step="{step.name}" data-from="{source.name}"'
        f' data-to="{target.name}"><path class="arrow"'
        f' d="M {_xy(tail)} Q {_xy(bend)} {_xy(tip)}"/>'
        f'<polygon class="head" points="{_head(bend, tip)}"/></g>'
    )


def _label(ends: tuple[State, State], steps: list[enum.Enum], layout: Layout) -> str:
    start, bend, end = _curve(*(layout.centres[state] for state in ends))
    tail, tip = _edge_point(start, bend, 0), _edge_point(end, bend, _ROOM)
    a, b, c = (1 - _NAMED_AT) ** 2, 2 * _NAMED_AT * (1 - _NAMED_AT), _NAMED_AT**2
    x, y = (a * p + b * q + c * r for p, q, r in zip(tail, bend, tip, strict=True))
    words = " / ".join(step.name.lower().replace("_", " ") for step in steps)
    return f'<text class="label" x="{x:.1f}" y="{y + 4:.1f}">{escape(words)}</text>'


def _curve(start: Point, end: Point) -> tuple[Point, Point, Point]:
    """Return start, control point and end; bent to one side, so that two ways stay apart."""
    (x1, y1), (x2, y2) = start, end
    bend = ((x1 + x2) / 2 + (y2 - y1) * _BOW, (y1 + y2) / 2 - (x2 - x1) * _BOW)
    return start, bend, end


def _edge_point(centre: Point, towards: Point, room: float) -> Point:
    """Return where the line from *centre* leaves its box, *room* further out."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    reach = min(
        (WIDTH / 2 + room) / abs(dx) if dx else math.inf,
        (HEIGHT / 2 + room) / abs(dy) if dy else math.inf,
    )
    return centre[0] + dx * reach, centre[1] + dy * reach


def _head(bend: Point, tip: Point) -> str:
    angle = math.atan2(tip[1] - bend[1], tip[0] - bend[0])
    corners = [(6.0, 0.0), (-5.0, 4.5), (-5.0, -4.5)]
    return " ".join(
        _xy(
            (
                tip[0] + a * math.cos(angle) - b * math.sin(angle),
                tip[1] + a * math.sin(angle) + b * math.cos(angle),
            )
        )
        for a, b in corners
    )


def _xy(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
