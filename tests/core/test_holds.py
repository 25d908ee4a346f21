"""Holds: who is kept back by a paused type or a held session, and let go with it."""

import itertools

from csjd import Job
from csjd._core.entry import Entry
from csjd._core.holds import Holds
from csjd._core.lanes import Worker
from csjd._core.ready import ReadyQueue
from csjd._core.ring import HashRing
from csjd._core.sessions import SessionTable
from csjd._model.handler import describe


async def _handle(job: Job) -> None:
    """Do nothing."""


SPECS = {name: describe(name, _handle) for name in "ab"}


class Scene:
    """Holds over one worker; what they offer is listed by id."""

    def __init__(self) -> None:
        ring = HashRing(3)
        ring.add(0)
        self.sessions = SessionTable(ring, 1.25, 60.0, {0: Worker(0)})
        self.queue = ReadyQueue()
        self.orders = itertools.count(1)
        self.offered: list[str] = []
        self.holds = Holds(self.sessions, lambda entry: self.offered.append(entry.job.id))

    def job(self, job_id: str, type: str = "a", session: str | None = None) -> Entry:
        entry = Entry(
            Job(type=type, id=job_id, session=session), SPECS[type], next(self.orders), 0.0
        )
        if session is None or self.sessions.join([entry], 0.0)[0]:
            self.queue.push(entry)
        return entry

    def set_aside(self, entry: Entry) -> None:
        """As when its turn comes."""
        self.queue.take(entry)
        self.holds.set_aside[entry.job.type][entry] = None


def test_jobs_of_a_paused_type_are_offered_again_in_the_order_of_their_turns() -> None:
    scene = Scene()
    jobs = [scene.job(job_id) for job_id in "xyz"]
    scene.holds.pause_type("a")
    for entry in reversed(jobs[:2]):
        scene.set_aside(entry)
    assert scene.holds.kept_back() == 2, "whose turn has not come stands in its queue"
    scene.holds.pause_type("a")  # changes nothing
    scene.holds.resume_type("a")
    assert scene.offered == ["y", "x"]
    scene.holds.resume_type("a")
    assert (scene.offered, scene.holds.any) == (["y", "x"], False)


def test_job_that_is_forgotten_is_not_offered_again() -> None:
    scene = Scene()
    entry, free = scene.job("x"), scene.job("y", type="b")
    scene.holds.pause_type("a")
    scene.set_aside(entry)
    scene.holds.forget(entry)
    scene.holds.forget(free)  # was never kept back
    scene.holds.resume_type("a")
    assert scene.offered == []


def test_paused_session_takes_its_head_out_of_the_queue() -> None:
    scene = Scene()
    head, _ = scene.job("head", session="s"), scene.job("behind", session="s")
    other = scene.job("other", session="t")
    scene.holds.pause_session("s", 0.0)
    assert (scene.queue.size, scene.holds.kept_back()) == (1, 1)
    assert (scene.holds.holds(head), scene.holds.holds(other)) == (True, False)
    assert not scene.holds.resume_session("s", 0.0), "it was not halted"
    assert (scene.offered, scene.holds.any) == (["head"], False)


def test_resuming_tells_whether_the_session_had_halted() -> None:
    scene = Scene()
    entry = scene.job("x", session="s")
    assert entry.session is not None
    scene.holds.halt_session(entry.session)
    assert scene.holds.any
    assert scene.holds.resume_session("s", 0.0)
    assert not scene.holds.resume_session("s", 0.0)
    assert not scene.holds.resume_session("never heard of", 0.0)
