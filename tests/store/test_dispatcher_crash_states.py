"""Losses of power with a dispatcher at work: each state of the disk holds what was promised."""

import random
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd import Job
from csjd._model.storing import LiveJob
from csjd.testing.simfs import SimFs
from tests.runtime.durable import opened, virtual_wall
from tests.store.conftest import FULL, Report

SEEDS = 200 if FULL else 20
STATES = 100 if FULL else 30


@pytest.fixture(autouse=True)
def _virtual(autojump_clock: MockClock) -> Iterator[None]:
    with virtual_wall(autojump_clock):
        yield


class Story:
    """One dispatcher's life, and what it had promised at each moment."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = SimFs(seed=seed)
        self.submitted: set[str] = set()
        self.acknowledged: list[str] = []
        """In the order the submits returned."""
        self.cancelled: set[str] = set()
        """Those whose cancellation was acknowledged."""
        self.begun_to_end: set[str] = set()
        """Those whose handler returned, or that were told to be cancelled."""
        self.states = 0
        self.registry = csjd.Registry()
        self.registry.register("do", self.do, retry=csjd.Retry(max_attempts=9, max_delay=0.2))

    async def do(self, job: Job) -> None:
        await trio.sleep(self.rng.random() * 0.2)
        if self.rng.random() < 0.2:
            raise OSError("once more")
        self.begun_to_end.add(job.id)

    async def live(self) -> None:
        self.disk.before = self.look
        store = csjd.FileJobStore("disk", compact_at=3000, files=self.disk)
        async with (
            opened(store, self.registry, stop_grace=1) as dispatcher,
            trio.open_nursery() as nursery,
        ):
            for session in "ab":
                nursery.start_soon(self.submit, dispatcher, session)
        self.disk.before = None

    async def submit(self, dispatcher: csjd.Dispatcher, session: str) -> None:
        for number in range(12):
            job = Job(type="do", id=f"{session}{number}", session=session)
            self.submitted.add(job.id)
            receipt = await dispatcher.submit(job)
            self.acknowledged.append(job.id)
            if self.rng.random() < 0.1:
                self.begun_to_end.add(job.id)
                receipt.cancel()
                if isinstance(await receipt.outcome(), csjd.Cancelled):
                    self.cancelled.add(job.id)
            await trio.sleep(self.rng.random() * 0.1)

    def look(self, kind: str, name: str) -> None:
        """See what a loss of power would leave, before the next change of the disk."""
        if self.rng.random() > 0.15:
            return
        for contents in self.disk.crash_states(STATES, self.rng):
            self.states += 1
            self.check(contents)

    def check(self, contents: dict[str, bytes]) -> None:
        store = csjd.FileJobStore("disk", files=SimFs(contents))
        live: list[LiveJob] = store.recover().live
        store.close()
        found = [job.accepted.id for job in live]
        must = [job_id for job_id in self.acknowledged if job_id not in self.begun_to_end]
        assert set(must) <= set(found)
        assert not self.cancelled & set(found)
        assert set(found) <= self.submitted
        for session in "ab":
            numbers = [int(job_id[1:]) for job_id in found if job_id[0] == session]
            assert numbers == sorted(numbers)


async def test_every_sampled_crash_state_holds_what_was_acknowledged(
    autojump_clock: MockClock, report: Report
) -> None:
    states = 0
    for seed in range(SEEDS):
        story = Story(seed)
        await story.live()
        assert len(story.acknowledged) == 24
        states += story.states
    assert states > SEEDS * 100
    report("dispatcher on a disk that forgets", states, seed=f"0 to {SEEDS - 1}")
