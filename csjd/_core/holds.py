"""
Holds: types and sessions of which no job may start for now, and whom that keeps back.

A job of a paused type is set aside when its turn comes, and no sooner. A session that is
held has its head taken out of the ready queue, and no other is offered. Whoever is kept
back so is READY and stands in no queue; when the hold is over, it is offered anew.
"""

from collections.abc import Callable

import attrs

from csjd._core.entry import Entry
from csjd._core.picking import SetAside
from csjd._core.ready import ReadyQueue
from csjd._core.sessions import Session, SessionTable
from csjd._model.lifecycle import JobState


@attrs.define(eq=False)
class Holds:
    """The types that are paused, the sessions that are held, and the jobs kept back by them."""

    sessions: SessionTable
    offer: Callable[[Entry], None]
    """Lets a READY job be taken."""
    set_aside: SetAside = attrs.field(factory=dict)
    held_sessions: set[Session] = attrs.field(factory=set)
    """Those paused or halted."""

    @property
    def any(self) -> bool:
        """Whether anything is held at all."""
        return bool(self.set_aside or self.held_sessions)

    def holds(self, entry: Entry) -> bool:
        """Whether the job must not start, were it its turn."""
        session = entry.session
        return entry.job.type in self.set_aside or (session is not None and session.held)

    def kept_back(self) -> int:
        """Return how many jobs are ready but paused, or head of a session that is held."""
        entries = {entry for aside in self.set_aside.values() for entry in aside}
        entries.update(session.head for session in self.held_sessions if session.head is not None)
        return sum(map(_is_kept_back, entries))

    # --- types -------------------------------------------------------------------------

    def pause_type(self, type: str) -> None:
        """Let no job of *type* start."""
        self.set_aside.setdefault(type, {})

    def resume_type(self, type: str) -> None:
        """Let jobs of *type* start again."""
        for entry in self.set_aside.pop(type, ()):
            self._offer_again(entry)

    def forget(self, entry: Entry) -> None:
        """Keep back no longer a job that will not start any more."""
        aside = self.set_aside.get(entry.job.type)
        if aside is not None:
            aside.pop(entry, None)

    # --- sessions ----------------------------------------------------------------------

    def pause_session(self, name: str, now: float) -> None:
        """Let no job of the session start."""
        session = self.sessions.open(name, now)
        session.pause()
        self.held_sessions.add(session)
        if session.head is not None and isinstance(session.head.holder, ReadyQueue):
            session.head.holder.discard(session.head)

    def halt_session(self, session: Session) -> None:
        """Let no job of *session* start, because one has failed."""
        session.halt()
        self.held_sessions.add(session)

    def resume_session(self, name: str, now: float) -> bool:
        """Let the session's jobs start again; return whether it had halted."""
        session = self.sessions.find(name, now)
        halted = session is not None and session.halted
        if session is not None:
            session.go_on()
            self.held_sessions.discard(session)
            if session.head is not None:
                self._offer_again(session.head)
        return halted

    def _offer_again(self, entry: Entry) -> None:
        """Offer *entry* if it is one that was kept back."""
        if _is_kept_back(entry):
            self.offer(entry)


def _is_kept_back(entry: Entry) -> bool:
    return entry.holder is None and entry.state is JobState.READY
