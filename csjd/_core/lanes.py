"""Workers and their lanes: who runs what since when, and who waits for work."""

import enum
import math
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from csjd._core.entry import Entry
from csjd._core.histogram import Recorder
from csjd._core.ready import ReadyQueue


class CancelReason(enum.Enum):
    """Why an attempt was cancelled; the first reason stays."""

    TIMEOUT = "timed out"
    REQUEST = "cancelled by request"
    SHUTDOWN = "stopped to shut down"
    LEASE_LOST = "lost its lease"


@attrs.define(eq=False)
class Worker:
    """An affinity domain."""

    id: int
    ready: ReadyQueue = attrs.field(factory=ReadyQueue)
    """Heads of its sessions that may start."""
    lanes: "list[Lane]" = attrs.field(factory=list)
    """Detached ones are not among them."""
    sessions: int = 0
    """Sessions bound to it."""
    parked: "list[Lane]" = attrs.field(factory=list)
    """Lanes that wait for work and have no wake-up under way to them."""
    leaving: bool = False
    """Removed: takes nothing more."""
    blocked: bool = True
    """It is leaving, has no lanes, or all are stuck: its sessions go elsewhere."""
    detached: int = 0
    """Detached handlers of its that still run."""
    picks: int = 0
    """
    Jobs that lanes of its have taken where there was a choice. Its own count: of a common one,
    each sixteenth pick might always be another worker's.
    """
    runs: list[float] = attrs.field(factory=list)
    """How long attempts ran that ended here since `settle`; always the same list."""
    unsuccessful: int = 0
    """Attempts that ended here in anything but success."""
    failed: int = 0
    """Jobs that failed for good here."""
    _settled: int = 0
    """Attempts that ended here before `settle`."""
    _settled_seconds: float = 0.0

    def settle(self, recorder: Recorder) -> None:
        """Sum up the runs, and hand them to *recorder*."""
        self._settled += len(self.runs)
        self._settled_seconds += sum(self.runs)
        recorder.fresh += self.runs
        self.runs.clear()

    @property
    def attempts(self) -> int:
        """Attempts begun here."""
        running = sum(lane.entry is not None for lane in self.lanes) + self.detached
        return self._ended + running

    @property
    def busy_seconds(self) -> float:
        """How long attempts ran here in all, those that have ended."""
        return self._settled_seconds + sum(self.runs)

    @property
    def succeeded(self) -> int:
        """Jobs that succeeded here; counted by exception, success being the rule."""
        return self._ended - self.unsuccessful

    @property
    def _ended(self) -> int:
        return self._settled + len(self.runs)

    @property
    def gone(self) -> bool:
        """Whether it was removed and nothing of it runs any more."""
        return self.leaving and not self.lanes and not self.detached


@attrs.define(eq=False)
class Lane:
    """A slot that runs one attempt at a time."""

    worker: Worker
    handle: Any = None
    """The runtime's task that serves it; the core only carries it."""
    entry: Entry | None = None
    """What it runs; None while it is free."""
    started: float = 0.0
    """When the attempt started; true only while busy, as all below."""
    deadline: float = math.inf
    reason: CancelReason | None = None
    """Why the attempt was cancelled, if it was."""
    cancelled_at: float = 0.0
    """When it was cancelled; true only with a reason."""
    stuck: bool = False
    """Deaf to its cancellation, and no budget to detach it."""
    detached: bool = False
    """Given up by its worker: it ends with its attempt. Never reverts."""
    left_behind: bool = False
    """Detached because it outlived a stop."""
    waits: "list[Any]" = attrs.field(factory=list)
    """What the attempt's tasks wait for that other jobs must bring about; see `deadlock`."""
    note_run: Callable[[float], None] = attrs.field(init=False)
    """Notes how long an attempt ran. The worker's `runs`, a step nearer."""

    def __attrs_post_init__(self) -> None:
        self.note_run = self.worker.runs.append

    def next_check(self, detach_grace: float) -> float:
        """Return when something has to be done about the attempt; `math.inf` for never."""
        if self.entry is None or self.detached or self.stuck:
            return math.inf
        return self.deadline if self.reason is None else self.cancelled_at + detach_grace


def next_check(lanes: Iterable[Lane], detach_grace: float) -> float:
    """Return when the first of *lanes* needs looking after; `math.inf` for never."""
    return min((lane.next_check(detach_grace) for lane in lanes), default=math.inf)


def due_for_check(lanes: Iterable[Lane], detach_grace: float, now: float) -> list[Lane]:
    """Return the lanes past their deadline, or deaf since their cancellation for too long."""
    return [lane for lane in lanes if lane.next_check(detach_grace) <= now]
