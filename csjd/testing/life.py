"""One dispatcher's life, as its events tell it: the model follows them, and the promises too."""

from collections.abc import Sequence

from csjd import (
    AttemptStarted,
    Cancelled,
    DeadLetterDiscarded,
    DeadLetterRequeued,
    DispatcherStopped,
    Event,
    Job,
    JobAccepted,
    JobEnded,
    JobStoreFailed,
    Resumed,
    Succeeded,
)
from csjd.stores import Accepted, Operation, Placed, Recovery, Requeued
from csjd.testing.machine_dispatcher import Shadow
from csjd.testing.promises import DurableModel, Promises


class Life(Shadow):
    """One dispatcher's life: hears its events until it dies, and judges them."""

    model: DurableModel
    wrong: str | None
    draining: bool
    failed: bool
    last: float

    def __init__(self, model: DurableModel, promises: Promises, to_wall: float) -> None:
        super().__init__(model)
        self.promises = promises
        self.to_wall = to_wall
        """What the wall clock is ahead of this life's clock."""
        self.dead = False
        """Whatever happens from now on has never happened."""
        self.failed = False
        """The store has failed."""
        self.ended: list[BaseException] | None = None
        """Once the dispatcher's block is left: what it raised."""
        self.last = 0.0
        """When something happened last that has to be written."""
        self.dues: dict[str, float] = {}
        """By id of a job handed in with a delay: when it is due."""
        self.ids: dict[int, str] = {}
        """Ids by the order that the store knows them by."""
        self.orders: dict[str, int] = {}
        """The other way round, for what was told last."""
        self.limbo: set[str] = set()
        """Handed in by callers who gave up waiting; still counted, for how long nobody knows."""

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if not self.dead:
            self.last = max(self.last, event.at)
            super().__call__(event)

    def complain(self, what: str) -> None:
        """Note what is wrong, unless it is too late for that."""
        if not self.dead:
            self.wrong = self.wrong or what

    def _hear(self, event: Event) -> None:
        promises, model = self.promises, self.model
        match event:
            case JobAccepted(at=at, job=job):
                due = self.dues.pop(job.id, None)
                promises.accept(job.id, None if due is None else due + self.to_wall)
                self.limbo.discard(job.id)
                model.reserved.pop(job.id, None)
                model.accept_at(self.orders[job.id], job, at, due)
            case AttemptStarted(job=job):
                assert not self.failed, f"{job.id} begins although the store has failed"
                super()._hear(event)
                promises.start(job.id)
            case JobEnded(at=at, job=job, outcome=outcome):
                each = model.find(job.id)
                assert each is not None, f"{job.id} ends and is not live"
                failed = not isinstance(outcome, (Succeeded, Cancelled))
                halts = failed and job.type == "halting"
                super()._hear(event)
                promises.end(each, at + self.to_wall, failed=failed, halts=halts)
            case DeadLetterRequeued(job=job):
                promises.bury(job.id, present=False)
            case DeadLetterDiscarded(job=job):
                promises.bury(job.id, present=False)
            case Resumed(session=str(session)):
                super()._hear(event)
                promises.halt(session, on=False)
            case JobStoreFailed():
                self.failed = model.stopped = True
            case DispatcherStopped(at=at, report=report):
                self._stopped(at, [job.id for job in report.unfinished])
            case _:
                super()._hear(event)

    def _started(self, at: float, job: Job, worker: int) -> None:
        if self.dispatcher is not None or self.model.config.workers == 1:
            super()._started(at, job, worker)
            return
        # Recovered jobs begin before the block does: nobody can say yet where sessions are
        # bound, so all that can be judged is whether this one's turn has come.
        self.model.fall_due(at, draining=self.draining)
        able = [each.job.id for each in self.model.takeable(worker, lambda session: worker)]
        assert job.id in able, f"{job.id} must not be taken"
        self.model.start(job.id, worker)

    def home(self, session: str) -> int:
        """Return the worker that *session* is bound to."""
        return 0 if self.dispatcher is None else super().home(session)

    def _stopped(self, at: float, listed: list[str]) -> None:
        # Which backoff still fell due is for the machine without a store to say: how long
        # it took to write what had ended is nothing that the model knows.
        model = self.model
        model.stopped, self.draining = True, False
        expected = model.unfinished()
        if any(not each.placed and (each.due or 0) <= at for each in model.jobs):
            listed, expected = sorted(listed), sorted(expected)  # places are under way
        assert listed == expected, f"{listed} reported, not {expected}"

    def recovered(self, recovery: Recovery) -> None:
        """Take in what the store tells at the beginning."""
        self.ids = {each.order: each.accepted.id for each in recovery.live}
        self.ids |= {each.order: each.accepted.id for each in recovery.dead_letters}
        given_up = self.model.adopt(recovery, 0.0, self.to_wall)
        self.promises.adopt(recovery, given_up, self.to_wall)

    def committed(self, operations: Sequence[Operation]) -> None:
        """Hear what the store knows of now; it is about to happen."""
        if self.dead:
            return
        for operation in operations:
            match operation:
                case Accepted(order=order, id=id):
                    self.ids[order] = id
                    self.orders[id] = order
                case Requeued(order=order, new_order=new) | Placed(order=order, new_order=new):
                    job_id = self.ids[new] = self.ids[order]
                    self.orders[job_id] = new
                    if isinstance(operation, Placed):
                        self.model.place(job_id, new)
