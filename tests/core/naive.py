"""Entries for tests of the core."""

from typing import Any

import csjd
from csjd._core.entry import Entry
from csjd._model.handler import HandlerSpec, describe


async def nothing(job: csjd.Job) -> None: ...


SPEC: HandlerSpec = describe("t", nothing)


def entry(order: int, priority: int = 0, *, session: str | None = None, **fields: Any) -> Entry:
    """Return a ready entry that was accepted as number *order*."""
    job = csjd.Job(type="t", id=str(order), priority=priority, session=session, **fields)
    return Entry(job, SPEC, order, 0.0)
