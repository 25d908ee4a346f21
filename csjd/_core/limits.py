"""Limits: how many jobs may be pending, in all and in a session, and how many sessions."""

import sys

import attrs

from csjd._core.ledger import Ledger
from csjd._core.sessions import SessionTable
from csjd._model.config import Config
from csjd._model.errors import QueueFullError
from csjd._model.job import Job


@attrs.define(eq=False)
class Limits:
    """Whether there is room for a job."""

    config: Config
    ledger: Ledger
    sessions: SessionTable
    reserved: int = 0
    """Jobs that have an id and room, and are not accepted yet."""
    are_set: bool = attrs.field(init=False)
    """Whether there is any limit that a job could be refused for."""

    def __attrs_post_init__(self) -> None:
        config = self.config
        limits = (config.max_pending, config.max_pending_per_session, config.max_sessions)
        self.are_set = any(limit is not None for limit in limits)

    @property
    def pending(self) -> int:
        """Live jobs, and those about to be."""
        return self.ledger.live + self.reserved

    def lacks_room(self, job: Job, now: float) -> QueueFullError | None:
        """Return the limit that keeps *job* out, None if there is room for it."""
        config = self.config
        if config.max_pending is not None and self.pending >= config.max_pending:
            return QueueFullError("max_pending", config.max_pending)
        if job.session is None:
            return None
        session = self.sessions.find(job.session, now)
        pending = session.pending if session else 0
        limit = config.max_pending_per_session
        if limit is not None and pending >= limit:
            return QueueFullError("max_pending_per_session", limit, job.session)
        limit = config.max_sessions
        if limit is not None and not pending and self.sessions.active >= limit:
            return QueueFullError("max_sessions", limit, job.session)
        return None

    def sure_room(self) -> int:
        """Return for how many jobs, whatever their sessions, there certainly is room."""
        config = self.config
        if config.max_pending_per_session is not None or config.max_sessions is not None:
            return 0
        if config.max_pending is None:
            return sys.maxsize
        return max(0, config.max_pending - self.pending)
