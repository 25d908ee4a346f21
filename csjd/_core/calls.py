"""
Wake-ups: which parked lane is to be called when work can be taken.

*Invariant: when no lane runs and no wake-up is under way, no parked lane can take any
ready job.* For a worker's sessions' work at most one wake-up is under way to that worker,
for shared work at most one in all; the lane that takes a job and sees more calls the next.
A lane that lingers will look for work by itself in a moment, so while one does nobody need
be called: a lane lingering counts like a wake-up under way.

A wake-up belongs to nobody. A lane that was called and goes away instead of looking for
work answers the call all the same and has it made again, so that no call dies with it.

The runtime carries the calls out: it parks lanes, sends what `take_calls` returns, and
reports back with `answered`.
"""

from collections import OrderedDict
from typing import NamedTuple

import attrs

from csjd._core.lanes import Worker


class Call(NamedTuple):
    """A wake-up under way to one of *worker*'s parked lanes."""

    worker: Worker
    shared: bool
    """Whether it is for shared work; else for the worker's sessions'."""


@attrs.define(eq=False)
class Switchboard:
    """Parked lanes and the calls to them."""

    parked: int = 0
    """Parked lanes in all that are not being called."""
    coming: int = 0
    """Lanes that will look for shared work without another call: called for it, or lingering."""
    _idle: OrderedDict[int, Worker] = attrs.field(factory=OrderedDict)
    """Workers with parked lanes, the one that has idled longest first: that spreads the load."""
    pending: list[Call] = attrs.field(factory=list)
    """Calls to be carried out."""

    def park(self, worker: Worker) -> None:
        """A lane of *worker* waits for work from now on."""
        worker.parked += 1
        self.parked += 1
        self._idle[worker.id] = worker

    def unpark(self, worker: Worker) -> None:
        """A parked lane of *worker* goes away without having been called."""
        worker.parked -= 1
        self.parked -= 1
        if not worker.parked:
            del self._idle[worker.id]

    def retire(self, worker: Worker) -> None:
        """*worker* takes nothing more: its parked lanes are called no longer."""
        self.parked -= worker.parked
        worker.parked = 0
        self._idle.pop(worker.id, None)

    def linger(self, worker: Worker) -> None:
        """A lane of *worker* will look for work in a moment by itself."""
        self.coming += 1
        worker.coming += 1

    def lingered(self, worker: Worker) -> None:
        """The lane looks for work now, or has gone away."""
        self.coming -= 1
        worker.coming -= 1

    def answered(self, call: Call) -> None:
        """The lane that *call* went to is awake."""
        if call.shared:
            self.coming -= 1
        else:
            call.worker.coming -= 1

    def call_worker(self, worker: Worker) -> None:
        """Work of *worker*'s sessions can be taken."""
        if worker.parked and not worker.coming:
            worker.coming += 1
            self._call(Call(worker, shared=False))

    def call_any(self) -> None:
        """Shared work can be taken."""
        if self.parked and not self.coming:
            self.coming += 1
            self._call(Call(next(iter(self._idle.values())), shared=True))

    def _call(self, call: Call) -> None:
        self.unpark(call.worker)
        self.pending.append(call)

    def take_calls(self) -> list[Call]:
        """Return the calls to carry out, and forget them."""
        calls = self.pending
        self.pending = []
        return calls
