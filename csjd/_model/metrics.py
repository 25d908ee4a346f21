"""Numbers about a dispatcher, frozen at the moment they were asked for."""

from collections.abc import Mapping

import attrs

from csjd._model.job import Job
from csjd._model.lifecycle import DispatcherState, JobState


@attrs.frozen(kw_only=True)
class Histogram:
    """Durations in seconds, counted in buckets."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets, ascending, in seconds; the last bucket has none."""
    counts: tuple[int, ...]
    """Durations per bucket; one more than `bounds`."""
    total: float
    """Sum of all durations, in seconds."""
    highest: float
    """The longest, in seconds."""

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean in seconds; 0 when nothing was counted."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, share: float) -> float:
        """
        Return a duration that *share* of all durations do not exceed, in seconds.

        Args:
            share: From 0 to 1; 0.99 for the p99.

        Returns:
            The upper bound of the bucket it falls in, at most `highest`: never too low,
            and at most 19 % too high. 0 when nothing was counted.

        Raises:
            ValueError: If *share* is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share must be from 0 to 1, got {share!r}")
        rank = share * self.count
        seen = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if count and seen >= rank:
                return min(bound, self.highest)
        return self.highest

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return self.percentile(0.50)

    @property
    def p90(self) -> float:
        """What nine of ten do not exceed, in seconds."""
        return self.percentile(0.90)

    @property
    def p99(self) -> float:
        """What 99 of a hundred do not exceed, in seconds."""
        return self.percentile(0.99)


@attrs.frozen(kw_only=True)
class MetricsSnapshot:
    """
    A dispatcher's counters since it was opened, and its gauges now.

    `accepted == succeeded + failed + cancelled + live`, always.
    """

    state: DispatcherState
    accepted: int
    """Jobs taken in; a requeued dead letter counts again, a recovered job counts."""
    recovered: int
    """Those of `accepted` that came out of the store when the dispatcher was opened."""
    succeeded: int
    failed: int
    """Jobs that failed for good, timed out ones included."""
    timed_out: int
    """Those of `failed` whose last attempt timed out."""
    cancelled: int
    live: int
    """Accepted and not ended: the sum of the six below."""
    ready: int
    scheduled: int
    waiting: int
    """Behind another job of their session, whether that runs, waits for its time or is parked."""
    parked: int
    """Their turn has come, but nobody can run them; `JobStoreOpened.unready` counts all such."""
    running: int
    detached: int

    duplicates: int
    """Refused because of their id."""
    rejected: int
    """
    Refused because a limit was reached, for ever if a handler waited for room; or because
    the store had no room or had failed.
    """
    invalid: int
    """Refused because something about them was unusable, or their type had no handler."""

    attempts: int
    """Attempts begun."""
    retries: int
    """Attempts that failed and were given another."""
    snoozed: int
    interrupted: int
    """Attempts ended by a stop and put back."""
    late: int
    """Successes after their deadline."""
    panics: int
    """Attempts ended by something that is no `Exception`."""
    detachments: int
    """Handlers that had to be detached, ever."""

    dead_letters: int
    """Kept now."""
    dead_letters_dropped: int
    """Pushed out by newer ones, ever."""
    sessions: int
    """Sessions that have jobs."""
    sessions_remembered: int
    """Sessions that have jobs or had some within `session_idle`."""
    ids_remembered: int
    """Ids that would be refused, live ones included; some windows may be over."""
    workers: int
    lanes: int
    lanes_busy: int
    lanes_stuck: int
    """Busy with a handler that ignores its cancellation, with no detach budget left for it."""
    wait: Histogram
    """From acceptance, or from falling due, to the attempt's start."""
    run: Histogram
    """From an attempt's start to its end."""

    @property
    def pending(self) -> int:
        """The same as `live`."""
        return self.live


@attrs.frozen(kw_only=True)
class WorkerStats:
    """One worker's numbers since it was added."""

    worker: int
    sessions: int
    """Sessions bound to it."""
    ready: int
    """Heads of its sessions that could start now."""
    lanes: int
    lanes_busy: int
    lanes_stuck: int
    detached: int
    """Detached handlers that began here and still run."""
    attempts: int
    """Attempts begun."""
    succeeded: int
    """Jobs."""
    failed: int
    """Jobs."""
    busy_seconds: float
    """Seconds its lanes have spent in attempts that ended."""
    leaving: bool
    """Removed: finishes what it runs and takes nothing more."""


@attrs.frozen(kw_only=True)
class SessionInfo:
    """One session's numbers since it was bound."""

    session: str
    worker: int
    pending: int
    """Accepted jobs that have not ended, delayed ones included."""
    running: str | None
    """The id of the job that is running."""
    succeeded: int
    failed: int
    cancelled: int
    paused: bool
    halted: bool


@attrs.frozen(kw_only=True)
class SessionDistribution:
    """How evenly sessions are spread."""

    by_worker: Mapping[int, int]
    """Sessions bound, by worker."""
    mean: float
    lowest: int
    highest: int
    deviation: float
    """Standard deviation over the workers."""

    @property
    def imbalance(self) -> float:
        """The highest share over the mean; 1 is perfectly even, 0 when there are no sessions."""
        return self.highest / self.mean if self.mean else 0.0


@attrs.frozen(kw_only=True)
class EndedJob:
    """One line of a dispatcher's history."""

    job_id: str
    type: str
    session: str | None
    state: JobState
    attempts: int
    duration: float
    """Seconds the last attempt ran."""
    ended: float
    """On Trio's clock."""


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A job that will not be tried again, with its last error."""

    job: Job
    attempts: int
    error: BaseException
    timed_out: bool
    failed: float
    """On Trio's clock."""


@attrs.frozen(kw_only=True)
class StuckHandler:
    """A handler that still ran although it had been cancelled."""

    job: Job
    worker: int
    running_for: float
    """Seconds."""
    stack: tuple[str, ...]
    """Where it is, outermost call first: `file:line in function`."""


@attrs.frozen(kw_only=True)
class StopReport:
    """What a stop did."""

    finished: tuple[str, ...]
    """Ids of the jobs that ended during the drain, in the order they ended."""
    unfinished: tuple[Job, ...]
    """
    Jobs that have not ended, in order of acceptance, stuck ones included. `start()` goes
    on with them; a program about to exit without a store can save and resubmit them.
    """
    stuck: tuple[StuckHandler, ...]
    """Handlers that outlived the stop."""
    duration: float
    """Seconds."""
