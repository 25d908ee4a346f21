"""Accepting in two steps: what was reserved is taken in, or given back without a trace."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from csjd import Config, DuplicateJobError, Job, QueueFullError
from csjd._core.backlog import Backlog
from csjd._core.reserving import Reservations
from csjd._model.handler import HandlerSpec, describe
from csjd._model.lifecycle import JobState


async def _handle(job: Job) -> None:
    """Do nothing."""


SPECS: Final[Mapping[str, HandlerSpec]] = {"a": describe("a", _handle)}


def reservations(**settings: Any) -> Reservations:
    backlog = Backlog.empty(Config(**settings))
    backlog.add_worker()
    return Reservations(backlog)


def jobs(*names: str, **fields: Any) -> list[Job]:
    return [Job(type="a", id=name, payload=b"x", **fields) for name in names]


@pytest.mark.parametrize(
    "odd",
    [
        Job(type="a", id="odd", payload="text"),
        Job(type="a", id="odd"),
        Job(type="a", id="odd", payload=b"x" * 11),
        Job(type="a", id="odd", payload=b"x", priority=1),
        Job(type="a", id="odd", payload=b"x", metadata={"k": 1}),
        Job(type="a", id="odd", payload=b"x", timeout=2**80),
        Job(type="a", id="odd", payload=b"x", max_attempts=2**80),
        Job(type="unheard-of", id="odd", payload=b"x"),
        Job(type="a", id="one", payload=b"x"),
    ],
    ids=lambda job: f"{job.type} {job.id} {job.priority} {str(job.payload)[:6]}",
)
def test_plain_jobs_are_taken_up_to_the_first_that_is_not(odd: Job) -> None:
    door = reservations(max_payload=10)
    entries = door.reserve_plain([*jobs("one", "two"), odd, *jobs("last")], SPECS, 0.0)
    assert [(entry.order, entry.job.id) for entry in entries] == [(1, "one"), (2, "two")]
    assert door.backlog.limits.reserved == 2
    assert door.backlog.last_order == 2


@pytest.mark.parametrize(("most", "taken"), [(None, 4), (9, 4), (3, 2), (1, 0)])
def test_plain_jobs_are_taken_while_there_is_room(most: int | None, taken: int) -> None:
    door = reservations(max_pending=most)
    door.reserve(jobs("before")[0], SPECS["a"], 0.0)
    assert len(door.reserve_plain(jobs(*"wxyz"), SPECS, 0.0)) == taken


@pytest.mark.parametrize("limit", ["max_pending_per_session", "max_sessions"])
def test_limits_of_sessions_are_looked_at_job_by_job(limit: str) -> None:
    door = reservations(**{limit: 1})
    assert door.reserve_plain(jobs("a"), SPECS, 0.0) == []
    door.reserve(jobs("a", session="s")[0], SPECS["a"], 0.0)
    with pytest.raises(QueueFullError):
        door.reserve(jobs("b", session="s" if "per" in limit else "t")[0], SPECS["a"], 0.0)


def test_reserved_jobs_have_ids_and_room_and_are_not_accepted() -> None:
    door = reservations()
    door.reserve_plain(jobs("a"), SPECS, 0.0)
    with pytest.raises(DuplicateJobError) as caught:
        door.reserve(jobs("a")[0], SPECS["a"], 0.0)
    assert caught.value.live
    backlog = door.backlog
    assert backlog.ids.find("a") is None
    assert (backlog.limits.pending, backlog.ledger.accepted, backlog.shared.size) == (1, 0, 0)


def test_admitted_jobs_stand_in_the_order_of_their_reservations() -> None:
    door = reservations()
    backlog = door.backlog
    plain = door.reserve_plain([*jobs("a"), *jobs("s1", "s2", session="s")], SPECS, 0.0)
    urgent = door.reserve(jobs("urgent", priority=5)[0], SPECS["a"], 0.0)
    later = door.reserve(jobs("later", session="s")[0], SPECS["a"], 0.0, due=9.0)
    last = door.reserve_plain(jobs("z"), SPECS, 0.0)
    door.admit([*plain, urgent, later, *last], 2.0)
    assert backlog.limits.reserved == 0
    assert backlog.ledger.accepted == 6
    assert [entry.job.id for entry in backlog.shared.drain()] == ["a", "urgent", "z"]
    assert [entry.state for entry in plain] == [JobState.READY, JobState.READY, JobState.WAITING]
    assert later.state is JobState.SCHEDULED
    assert backlog.delays.next_due() == 9.0
    assert plain[0].since == 2.0
    assert backlog.ids.find("z") is last[0]


def test_what_is_given_back_leaves_nothing_but_its_orders() -> None:
    door = reservations(max_pending=3, max_sessions=1)
    backlog = door.backlog
    entries = [
        door.reserve(job, SPECS["a"], 0.0) for job in (*jobs("a"), *jobs("b", "c", session="s"))
    ]
    door.give_back(entries, 1.0)
    assert (backlog.limits.pending, backlog.sessions.active, backlog.ids.remembered()) == (0, 0, 0)
    assert door.reserve(jobs("a", session="t")[0], SPECS["a"], 1.0).order == 4
