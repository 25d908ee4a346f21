"""
Wake-ups: which parked lane is to be called when work can be taken.

*Invariant: when no lane runs and no wake-up is under way, no parked lane can take any
ready job.* At most one wake-up is under way; the lane that takes a job and sees more work
calls the next. A lane that lingers will look for work by itself in a moment, so while one
does nobody need be called: a lane lingering counts like a wake-up under way.

Lanes differ only in whose work they may take, so a task that is awake and finds nothing
for its own lane takes over a parked one that has work, and leaves it its own: a switch
between tasks costs more than many a handler.

A wake-up belongs to nobody. A lane that was called and goes away instead of looking for
work answers the call all the same and has it made again, so that no call dies with it.

The runtime carries the calls out: it parks lanes, wakes those that `take_calls` returns,
and reports back with `arrived`.
"""

from collections import OrderedDict

import attrs

from csjd._core.lanes import Lane, Worker


@attrs.define(eq=False)
class Switchboard:
    """Parked lanes and the calls to them."""

    parked: int = 0
    """Parked lanes in all that are not being called."""
    coming: int = 0
    """Lanes that will look for work without another call: called, or lingering."""
    eager: dict[Worker, None] = attrs.field(factory=dict)
    """Workers in whose sessions there was work for a parked lane of theirs, by age; some still."""
    pending: list[Lane] = attrs.field(factory=list)
    """Lanes to be woken."""
    _idle: OrderedDict[int, Worker] = attrs.field(factory=OrderedDict)
    """Workers with parked lanes, the one that has idled longest first: that spreads the load."""

    def park(self, lane: Lane) -> None:
        """*lane* waits for work from now on."""
        worker = lane.worker
        worker.parked.append(lane)
        self.parked += 1
        self._idle[worker.id] = worker

    def unpark(self, lane: Lane) -> None:
        """*lane*, if it still is parked, goes away without having been called."""
        worker = lane.worker
        if lane in worker.parked:
            worker.parked.remove(lane)
            self._one_less(worker)

    def retire(self, worker: Worker) -> list[Lane]:
        """*worker* takes nothing more: return its parked lanes, which are called no longer."""
        lanes, worker.parked = worker.parked, []
        self.parked -= len(lanes)
        self._idle.pop(worker.id, None)
        self.eager.pop(worker, None)
        return lanes

    def linger(self) -> None:
        """A lane will look for work in a moment by itself."""
        self.coming += 1

    def arrived(self) -> None:
        """A lane that was called, or lingered, looks for work now, or has gone away."""
        self.coming -= 1

    def call_worker(self, worker: Worker) -> None:
        """Work of *worker*'s sessions can be taken."""
        if worker.parked:
            self.eager[worker] = None
            if not self.coming:
                self._call(worker)

    def call_any(self) -> None:
        """Shared work can be taken."""
        if self.parked and not self.coming:
            self._call(next(iter(self._idle.values())))

    def call_eager(self) -> None:
        """Work can be taken of the sessions of any worker that is eager."""
        if not self.coming and (worker := self.first_eager()) is not None:
            self._call(worker)

    def first_eager(self) -> Worker | None:
        """Return the first worker in whose sessions there is work for a parked lane of its."""
        while self.eager:
            worker = next(iter(self.eager))
            if worker.parked and worker.ready.size:
                return worker
            del self.eager[worker]
        return None

    def take_over(self, worker: Worker, own: Lane) -> Lane:
        """Exchange *own*, which has nothing to do, for a parked lane of *worker*; return that."""
        self.park(own)
        lane = worker.parked.pop()
        self._one_less(worker)
        return lane

    def take_calls(self) -> list[Lane]:
        """Return the lanes to wake, and forget them."""
        lanes = self.pending
        self.pending = []
        return lanes

    def _call(self, worker: Worker) -> None:
        self.coming += 1
        self.pending.append(worker.parked.pop())
        self._one_less(worker)

    def _one_less(self, worker: Worker) -> None:
        self.parked -= 1
        if not worker.parked:
            del self._idle[worker.id]
