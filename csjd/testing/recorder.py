"""An observer that writes everything down."""

from typing import TypeVar

import attrs

from csjd import Event, JobEvent

E = TypeVar("E", bound=Event)


@attrs.define(eq=False)
class Recorder:
    """
    Pass one to `open_dispatcher(..., observers=[recorder])`.

    `events` holds what it heard, in order.
    """

    events: list[Event] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        """Note *event*."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def about(self, job_id: str) -> list[JobEvent]:
        """Return the events about one job, in order."""
        return [e for e in self.events if isinstance(e, JobEvent) and e.job.id == job_id]

    def names(self, job_id: str | None = None) -> list[str]:
        """Return the names of the events, or of those about one job, in order."""
        events = self.events if job_id is None else self.about(job_id)
        return [type(event).__name__ for event in events]
