"""The table of sessions: who stands where, and what is forgotten when."""

import itertools
import math

from csjd._core.entry import Entry
from csjd._core.lanes import Worker
from csjd._core.ring import HashRing
from csjd._core.sessions import SessionTable
from csjd._model.handler import HandlerSpec
from csjd._model.job import Job
from csjd._model.retry import Retry


async def _nothing(job: Job) -> None:  # noqa: ASYNC124  a handler
    pass


SPEC = HandlerSpec(
    type="a",
    function=_nothing,
    threaded=False,
    takes_attempt=False,
    timeout=math.inf,
    retry=Retry(),
)
IDLE = 60.0


class Scene:
    """A table over some workers; what is done to it happens at `now`."""

    def __init__(self, workers: int = 1) -> None:
        ring = HashRing(150)
        self.workers = {number: Worker(number, blocked=False) for number in range(workers)}
        for number in self.workers:
            ring.add(number)
        self.table = SessionTable(ring, 1.25, IDLE, self.workers)
        self.now = 0.0
        self._orders = itertools.count(1)

    def entries(self, *sessions: str) -> list[Entry]:
        """Return a new job of each session."""
        return [
            Entry(Job(type="a", session=name), SPEC, next(self._orders), self.now)
            for name in sessions
        ]

    def join(self, *sessions: str) -> list[Entry]:
        """Let a new job of each session join its line."""
        entries = self.entries(*sessions)
        self.table.join(entries, self.now)
        return entries

    def leave(self, *entries: Entry) -> None:
        """Let jobs end."""
        for entry in entries:
            assert entry.session is not None
            self.table.leave(entry.session, entry, self.now)


def test_jobs_that_join_together_are_heads_or_wait_in_the_order_they_came() -> None:
    scene = Scene(workers=3)
    entries = scene.entries("a", "b", "a", "c", "b", "a")
    heads, waiting = scene.table.join(entries, scene.now)
    assert sorted(entry.order for of_worker in heads.values() for entry in of_worker) == [1, 2, 4]
    for worker, of_worker in heads.items():
        assert all(entry.session is not None for entry in of_worker)
        assert {entry.session.worker for entry in of_worker if entry.session} == {worker}
    assert waiting == [entries[2], entries[4], entries[5]]
    assert entries[0].behind is entries[2]
    assert entries[2].behind is entries[5]
    assert scene.table.active == 3


def test_heads_of_held_sessions_are_not_to_be_offered() -> None:
    scene = Scene()
    scene.table.open("a", 0.0).pause()
    heads, waiting = scene.table.join(scene.entries("a", "b", "a"), 0.0)
    assert [entry.job.session for entry in heads[scene.workers[0]]] == ["b"]
    assert [entry.job.session for entry in waiting] == ["a"]


def test_load_of_a_worker_is_bounded() -> None:
    scene = Scene(workers=5)
    for number in range(300):
        scene.join(f"s{number}")
        most = math.ceil(1.25 * (number + 1) / 5)
        assert max(worker.sessions for worker in scene.workers.values()) <= most


def test_idle_sessions_are_forgotten_as_new_ones_come() -> None:
    scene = Scene()
    scene.leave(*scene.join("a", "b", "c", "d"))
    scene.now = IDLE - 1
    scene.join("e")
    assert len(scene.table) == 5, "nobody is idle for so long"
    scene.now = IDLE
    scene.join("f")  # takes two along
    assert len(scene.table) == 4
    scene.join("g")
    assert len(scene.table) == 3
    assert scene.workers[0].sessions == 3


def test_session_that_worked_meanwhile_is_not_forgotten() -> None:
    scene = Scene()
    scene.leave(*scene.join("a", "b"))
    scene.now = 30.0
    scene.leave(*scene.join("a"))
    busy = scene.join("b")
    scene.now = IDLE
    scene.join("new")
    assert scene.table.find("a", scene.now) is not None, "idle since 30"
    assert scene.table.find("b", scene.now) is not None, "busy"
    scene.leave(*busy)
    scene.now = 2 * IDLE
    scene.join("newer", "newest")
    assert len(scene.table) == 3, "three new ones, and nobody else"


def test_held_session_is_never_forgotten() -> None:
    scene = Scene()
    scene.leave(*scene.join("held", "other"))
    scene.table.open("held", 0.0).pause()
    for turn in range(1, 5):
        scene.now = turn * IDLE
        scene.leave(*scene.join(f"new {turn}"))
    assert scene.table.find("held", scene.now) is not None
    assert scene.table.find("other", scene.now) is None


def test_session_asked_for_when_its_time_is_over_is_bound_anew() -> None:
    scene = Scene()
    scene.leave(*scene.join("a"))
    old = scene.table.find("a", 0.0)
    scene.now = IDLE
    [entry] = scene.join("a")
    assert entry.session is not old
    assert scene.workers[0].sessions == 1
