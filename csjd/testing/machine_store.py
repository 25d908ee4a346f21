"""
The rule-based machine over the real dispatcher with a store, which dies again and again.

Needs hypothesis. It is the machine of `machine_dispatcher` with one life after another:
the process is killed or the machine loses its power between two steps, or in the midst of
a commit; the block is left; the disk fails. What the store tells afterwards is held
against what was promised, and the next dispatcher goes on with it. How it lives and dies
stands in `machine_lives`; here are its jobs.

    class MyMachine(StoreMachine):
        def make_world(self) -> World:
            return MyWorld()
"""

import contextlib
import math

import trio
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from csjd import (
    Cancelled,
    CsjdError,
    DispatcherState,
    DuplicateJobError,
    Job,
    JobStoreClosedError,
    JobStoreError,
    JobStoreFullError,
    QueueFullError,
    Receipt,
)
from csjd.testing.life import Life
from csjd.testing.machine_dispatcher import IDS, SESSIONS, TYPES
from csjd.testing.machine_lives import LivesMachine
from csjd.testing.worlds import MemoryWorld, World

_INSTANT = 1e-6
_DEEDS = ("return", "return", "return", "fail", "fail", "fail for good", "snooze")


class StoreMachine(LivesMachine):
    """Hands jobs to one dispatcher after another, and knows what each may answer."""

    @rule(
        id=st.sampled_from(IDS),
        type=st.sampled_from(TYPES),
        session=st.sampled_from(SESSIONS),
        priority=st.integers(-1, 2),
        delay=st.sampled_from([0.0, 0.0, 0.0, 1.03, 2.53, 33.03]),
        patience=st.sampled_from([None, None, None, 0.05, 0.4, 2.27]),
    )
    def submit(
        self,
        id: str,
        type: str,
        session: str | None,
        priority: int,
        delay: float,
        patience: float | None,
    ) -> None:
        """Submit a job, perhaps not waiting for the answer."""
        if self.dispatcher.state is not DispatcherState.RUNNING:
            return
        job = Job(type=type, id=id, session=session, priority=priority)
        expected = self.model.refusal(job, self.now)
        if expected is not None and not self.shadow.limbo:
            self._expect_refusal(job, expected)
            return
        if expected is None:
            self._offer(job)
            if delay:
                self.shadow.dues[id] = self.now + delay
            self.guest.spawn(self._submit, job, delay, patience)
            self.guest.settle()

    def _expect_refusal(self, job: Job, expected: str) -> None:
        async def submit() -> None:
            try:
                await self.dispatcher.submit(job)
            except (DuplicateJobError, QueueFullError):
                return
            except CsjdError as error:
                life.complain(f"{job.id} was refused by {error!r}, and should be: {expected}")
            else:
                life.complain(f"{job.id} was accepted, and should not be: {expected}")

        life = self.shadow
        self.guest.spawn(submit)
        self.guest.settle()

    def _offer(self, job: Job) -> None:
        self.promises.offered.add(job.id)
        self.model.reserved[job.id] = job

    def _take_back(self, life: Life, job_id: str) -> None:
        """Nothing has come of what was handed in."""
        life.promises.offered.discard(job_id)
        life.model.reserved.pop(job_id, None)
        life.dues.pop(job_id, None)

    async def _submit(self, job: Job, delay: float, patience: float | None) -> None:
        life = self.shadow
        receipt = None
        try:
            with trio.move_on_after(float("inf") if patience is None else patience) as scope:
                receipt = await self.dispatcher.submit(job, delay=delay)
        except (DuplicateJobError, QueueFullError) as error:
            life.complain(f"{job.id}: {error!r}, and there is no reason for it")
        except JobStoreError as error:
            self._refused_by_the_store(life, job.id, error)
        else:
            if receipt is not None:
                self._acknowledged(life, receipt)
                if self.now - scope.deadline > self.config.commit_grace + _INSTANT:
                    life.complain(f"{job.id} kept its caller beyond the grace")
            elif not life.dead:
                self._given_up(life, job.id, scope.deadline)

    def _refused_by_the_store(self, life: Life, job_id: str, error: JobStoreError) -> None:
        if life.dead:
            return
        self.tally["the store was full"] += isinstance(error, JobStoreFullError)
        if isinstance(error, (JobStoreFullError, JobStoreClosedError)):
            self._take_back(life, job_id)
        elif not life.failed:
            life.complain(f"{job_id}: {error!r}, and the store goes on")

    def _acknowledged(self, life: Life, receipt: Receipt) -> None:
        job_id = receipt.job.id
        if job_id in life.promises.offered:
            life.complain(f"{job_id} was acknowledged and not accepted")

    def _given_up(self, life: Life, job_id: str, deadline: float) -> None:
        """Whoever submitted it was cancelled: nothing has happened, unless it took very long."""
        if job_id not in life.promises.offered:
            life.complain(f"{job_id} was accepted, and the caller cancelled")
        elif self.now - deadline < self.config.commit_grace - _INSTANT:
            self._take_back(life, job_id)
            self.tally["a submit was withdrawn"] += 1
        else:
            life.limbo.add(job_id)
            self.tally["a submit outlasted its grace"] += 1

    @rule(
        numbers=st.lists(
            st.tuples(st.sampled_from(IDS), st.sampled_from(SESSIONS)), min_size=2, max_size=5
        ),
        patience=st.sampled_from([None, 0.05, 0.3]),
    )
    def rush(self, numbers: list[tuple[str, str | None]], patience: float | None) -> None:
        """Submit jobs at the same time, the first patiently."""
        if self.dispatcher.state is not DispatcherState.RUNNING or self.shadow.limbo:
            return
        wait: float | None = None
        for name, session in numbers:
            job = Job(type="plain", id=name, session=session)
            if self.model.refusal(job, self.now) is None:
                self._offer(job)
                self.guest.spawn(self._submit, job, 0.0, wait)
                if wait is None:
                    self.guest.settle()
                wait = patience
        self.guest.settle()

    @precondition(lambda self: self.running)
    @rule(deeds=st.lists(st.sampled_from(_DEEDS), min_size=2, max_size=8))
    def work(self, deeds: list[str]) -> None:
        """Let handlers get on, one after the other."""
        for deed in deeds:
            if self.running:
                running = self.running[min(self.running)]
                running.deed = deed
                running.seconds = 11.41
                running.told.set()
                self.guest.settle()

    @rule(numbers=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(SESSIONS)), max_size=8))
    def submit_batch(self, numbers: list[tuple[str, str | None]]) -> None:
        """Submit jobs together."""
        if self.dispatcher.state is not DispatcherState.RUNNING or self.shadow.limbo:
            return
        jobs = [Job(type="plain", id=name, session=session) for name, session in numbers]
        expected: list[str | None] = []
        for job in jobs:
            expected.append(self.model.refusal(job, self.now))
            if expected[-1] is None:
                self._offer(job)
        self.guest.spawn(self._submit_batch, jobs, expected)
        self.guest.settle()

    async def _submit_batch(self, jobs: list[Job], expected: list[str | None]) -> None:
        life = self.shadow
        report = await self.dispatcher.submit_batch(jobs)
        if life.dead:
            return
        if report.accepted + len(report.errors) != len(jobs):
            life.complain(f"a batch report contradicts itself: {report}")
        for position, job in enumerate(jobs):
            receipt, error = report.receipts[position], report.errors.get(position)
            if expected[position] is not None:
                if receipt is not None or isinstance(error, JobStoreError):
                    life.complain(f"{job.id}: {error!r}, not {expected[position]}")
            elif receipt is not None:
                self._acknowledged(life, receipt)
            elif isinstance(error, JobStoreError):
                self._refused_by_the_store(life, job.id, error)
            else:
                life.complain(f"{job.id}: {error!r}, and there is no reason for it")

    @rule(id=st.sampled_from(IDS))
    def cancel(self, id: str) -> None:
        """Cancel a job, wherever it is; without a receipt nobody is told when that is durable."""
        lives = self.model.find(id) is not None
        assert self._plain(lambda: self.dispatcher.cancel(id)) is lives or self.shadow.dead

    @rule(id=st.sampled_from(IDS), session=st.sampled_from(SESSIONS))
    def submit_and_cancel(self, id: str, session: str | None) -> None:
        """Submit a job, cancel it, and wait until that is durable."""
        job = Job(type="plain", id=id, session=session)
        if self.dispatcher.state is not DispatcherState.RUNNING or self.shadow.limbo:
            return
        if self.model.refusal(job, self.now) is None:
            self._offer(job)
            self.guest.spawn(self._submit_and_cancel, job)
            self.guest.settle()

    async def _submit_and_cancel(self, job: Job) -> None:
        life = self.shadow
        try:
            receipt = await self.dispatcher.submit(job)
        except JobStoreError as error:
            self._refused_by_the_store(life, job.id, error)
            return
        self._acknowledged(life, receipt)
        receipt.cancel()
        with contextlib.suppress(CsjdError):
            outcome = await receipt.outcome()
            again = life.model.find(job.id) is not None or job.id in life.promises.offered
            if isinstance(outcome, Cancelled) and not life.dead and not again:
                life.promises.gone(job.id)

    @precondition(lambda self: self.promises.dead)
    @rule(data=st.data(), again=st.booleans(), patience=st.sampled_from([math.inf, math.inf, 0.06]))
    def open_a_dead_letter(self, data: st.DataObject, again: bool, patience: float) -> None:
        """Requeue a dead letter, or throw it away and perhaps give up on that."""
        job_id = data.draw(st.sampled_from(sorted(self.promises.dead)))
        life = self.shadow
        if self.dispatcher.state is not DispatcherState.RUNNING or life.limbo:
            return
        if job_id in self.model.reserved:  # by another job, or it is being requeued just now
            return
        kept = [letter.job.id for letter in self.guest.call(self.dispatcher.dead_letters)]
        if job_id not in kept:  # it is being discarded just now
            return
        if not again:
            self.guest.spawn(self._discard, job_id, patience)
        elif self.model.find(job_id) is None:
            self.guest.spawn(self._requeue, job_id)
        self.guest.settle()

    async def _requeue(self, job_id: str) -> None:
        life = self.shadow
        letters = await self.dispatcher.dead_letters()
        if life.dead:
            return
        [letter] = [each for each in letters if each.job.id == job_id]
        full = life.model.lacks_room(letter.job, self.now)
        if not full:
            self._offer(letter.job)
            life.promises.dead_changed.add(job_id)
        try:
            await self.dispatcher.requeue(job_id)
        except QueueFullError as error:
            if not full:
                life.complain(f"{job_id} cannot be requeued: {error!r}")
        except JobStoreError as error:
            self._refused_by_the_store(life, job_id, error)
        else:
            if not life.dead and (full or job_id in life.promises.offered):
                life.complain(f"{job_id} was requeued and not accepted, or there was no room")

    async def _discard(self, job_id: str, patience: float) -> None:
        life = self.shadow
        life.promises.dead_changed.add(job_id)
        with contextlib.suppress(JobStoreError), trio.move_on_after(patience) as giving_up:
            await self.dispatcher.discard(job_id)
            if not life.dead and job_id not in life.promises.dead:
                life.promises.dead_changed.discard(job_id)
            return
        if giving_up.cancelled_caught and not life.dead and job_id not in life.promises.dead:
            life.complain(f"{job_id} was discarded, and its caller told that it was not")

    @rule(seconds=st.sampled_from([0.06, 0.25, 1.0, 2.5, 6.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.guest.pass_time(seconds)

    @rule(workers=st.integers(1, 4))
    def resize(self, workers: int) -> None:
        """Change the number of workers."""
        self.guest.call(self.dispatcher.resize, workers)


class MemoryMachine(StoreMachine):
    """The same over a store that keeps every commit: what it finds is the dispatcher's."""

    def make_world(self) -> World:
        """Return an empty memory."""
        return MemoryWorld()
