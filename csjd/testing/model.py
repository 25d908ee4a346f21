"""
The plain model: what the contract says, in the plainest code that says it.

One list of jobs, looked through from the front for every question. It is told what
happened and when, answers what may happen next, and knows nothing of workers' rings,
lanes or wake-ups; to which worker a session is bound it has to be told.
"""

from collections.abc import Callable

import attrs

from csjd import Config, Job, JobState

Home = Callable[[str], int]
"""Which worker a session is bound to."""


@attrs.define(eq=False)
class ModelJob:
    """One live job."""

    job: Job
    place: int
    """Its number in the order of acceptance."""
    due: float | None = None
    """When it may start; None: at once."""
    placed: bool = True
    """False: accepted with a delay, and not due yet; it has no place in its session."""
    snoozed: bool = False
    """Its due time is one that it asked for itself; true only while it has one."""
    running: int | None = None
    """The worker that runs it."""
    detached: bool = False
    attempts: int = 0


@attrs.define(eq=False)
class Model:
    """All that the contract knows of a dispatcher's jobs."""

    config: Config
    jobs: list[ModelJob] = attrs.field(factory=list)
    """The live ones, in the order of their places."""
    stopped: bool = True
    paused: bool = False
    paused_types: set[str] = attrs.field(factory=set)
    held_sessions: set[str] = attrs.field(factory=set)
    """Paused, or halted by a failure."""
    accepted: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    _windows: dict[str, float] = attrs.field(factory=dict)
    """Until when an ended id is refused."""
    _places: int = 0
    _passed_over: int = 0
    """Picks since the oldest was last picked."""

    # --- coming in ---------------------------------------------------------------------------

    def refusal(self, job: Job, now: float) -> str | None:
        """Return why *job* must be refused, None if it must be accepted."""
        if self.find(job.id) is not None or self._windows.get(job.id, now) > now:
            return "duplicate"
        config = self.config
        if config.max_pending is not None and len(self.jobs) >= config.max_pending:
            return "max_pending"
        if job.session is None:
            return None
        mine = sum(each.job.session == job.session for each in self.jobs)
        if config.max_pending_per_session is not None and mine >= config.max_pending_per_session:
            return "max_pending_per_session"
        sessions = {each.job.session for each in self.jobs} - {None, job.session}
        if config.max_sessions is not None and not mine and len(sessions) >= config.max_sessions:
            return "max_sessions"
        return None

    def accept(self, job: Job, now: float, delay: float = 0.0) -> None:
        """Take *job* in."""
        self.accepted += 1
        self.jobs.append(
            ModelJob(job, self._next_place(), now + delay if delay else None, placed=not delay)
        )

    def _next_place(self) -> int:
        self._places += 1
        return self._places

    # --- time --------------------------------------------------------------------------------

    def fall_due(self, now: float, *, draining: bool = False) -> None:
        """Let time come to *now*; while draining, only backoff falls due."""
        due = [each for each in self.jobs if each.due is not None and each.due <= now]
        for each in sorted(due, key=lambda each: (each.due, each.place)):
            if draining and (each.snoozed or not each.placed):
                continue
            each.due, each.snoozed = None, False
            if not each.placed:
                each.placed = True
                each.place = self._next_place()
        self.jobs.sort(key=lambda each: each.place)

    # --- what may start ----------------------------------------------------------------------

    def find(self, job_id: str) -> ModelJob | None:
        """Return the live job with this id."""
        return next((each for each in self.jobs if each.job.id == job_id), None)

    def state(self, each: ModelJob) -> JobState:
        """Return where a live job is in its life."""
        if each.running is not None:
            return JobState.DETACHED if each.detached else JobState.RUNNING
        if each.due is not None:
            return JobState.SCHEDULED
        return JobState.READY if self._is_head(each) else JobState.WAITING

    def _is_head(self, each: ModelJob) -> bool:
        session = each.job.session
        line = [other for other in self.jobs if other.placed and other.job.session == session]
        return session is None or line[0] is each

    def takeable(self, worker: int, home: Home) -> list[ModelJob]:
        """Return the jobs that a free lane of *worker* may take."""
        if self.stopped or self.paused:
            return []
        return [
            each
            for each in self.jobs
            if self.state(each) is JobState.READY
            and each.job.type not in self.paused_types
            and each.job.session not in self.held_sessions
            and (each.job.session is None or home(each.job.session) == worker)
        ]

    def wrong_pick(self, picked: str | None, worker: int, home: Home) -> str | None:
        """
        Return what is wrong with *worker* taking the job *picked* now, None if nothing is.

        Right is the first by priority; within any sixteen picks the oldest gets its turn.
        """
        choice = self.takeable(worker, home)
        if picked is None:
            return f"{choice[0].job.id} could be taken" if choice else None
        each = self.find(picked)
        if each is None or each not in choice:
            return f"{picked} must not be taken"
        first = min(choice, key=lambda other: (-other.job.priority, other.place))
        oldest = choice[0]
        if each is not first and each is not oldest:
            return f"{picked} was taken, not {first.job.id} or {oldest.job.id}"
        if each is oldest:
            self._passed_over = 0
            return None
        self._passed_over += 1
        if self._passed_over >= 16:
            return f"{oldest.job.id} is the oldest and was passed over {self._passed_over} times"
        return None

    # --- what happens to a job ---------------------------------------------------------------

    def start(self, job_id: str, worker: int) -> None:
        """*worker* takes the job."""
        each = self._of(job_id)
        each.running = worker
        each.attempts += 1

    def end(self, job_id: str, how: str, now: float, *, halts: bool = False) -> None:
        """The job ends: it `succeeded`, `failed` or is `cancelled`."""
        each = self._of(job_id)
        self.jobs.remove(each)
        self._windows[job_id] = now + self.config.duplicate_window
        setattr(self, how, getattr(self, how) + 1)
        if halts and each.job.session is not None:
            self.held_sessions.add(each.job.session)

    def put_back(self, job_id: str, due: float | None, *, charged: bool) -> None:
        """The attempt is over, the job is not: retried, snoozed or interrupted."""
        each = self._of(job_id)
        each.running, each.detached, each.due = None, False, due
        each.attempts -= not charged
        each.snoozed = due is not None and not charged

    def _of(self, job_id: str) -> ModelJob:
        each = self.find(job_id)
        assert each is not None, f"{job_id} is not live"
        return each

    # --- asked between steps -----------------------------------------------------------------

    def counts(self) -> dict[JobState, int]:
        """Return how many live jobs are in each state."""
        states = [self.state(each) for each in self.jobs]
        return {state: states.count(state) for state in JobState}

    def unfinished(self) -> list[str]:
        """Return the ids of the live jobs, in order of acceptance."""
        return [each.job.id for each in self.jobs]
