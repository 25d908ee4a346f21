"""
Structured logs: what a dispatcher does, as records of the standard library's `logging`.

`LogObserver` is an observer like any other; hand it to `open_dispatcher`. Its records
carry their facts as attributes, so any formatter or handler can use them; `JsonFormatter`
writes each record as one line of JSON.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final, final

import csjd

_QUIET, _NEWS, _TROUBLE, _LOSS = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


@final
class LogObserver:
    """
    Logs every event of a dispatcher.

    Every record has the attribute `event`, the name of the event's class, and `component`,
    the part of csjd it comes from: `admission`, `worker`, `scheduler`, `store` or
    `dispatcher`.

    Records about a job also have `job_id`, `job_type`, `payload_size` (bytes of a bytes or
    str payload; None when it is not known) and `session`, and, when it is known,
    `attempt`, counted from 1. Where they apply: `worker`, `outcome` (`succeeded`,
    `failed`, `timed_out` or `cancelled`), `duration` and `delay` in seconds, `error`,
    `reason`. Neither the payload nor what a handler returns is ever logged, but what a
    handler puts into an error, or hands to `Attempt.progress`, is.

    Levels: DEBUG for a job's ordinary course; INFO for its end and for what somebody asked
    for; WARNING for attempts that will be repeated, handlers that were detached and jobs
    that are parked; ERROR for jobs that have failed for good (with their traceback),
    handlers that are stuck, sessions that halt, dead letters that made room for newer ones
    and a store that has failed.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """Log to *logger*; default: the one named `csjd.jobs`."""
        self._logger = logging.getLogger("csjd.jobs") if logger is None else logger

    def __call__(self, event: csjd.Event) -> None:
        """Log *event*, if its level is enabled."""
        level = _level(event)
        if not self._logger.isEnabledFor(level):
            return  # nothing is gathered that nobody will see
        facts = _facts(event)
        about = f"{facts['job_type']} job {facts['job_id']}: " if "job_id" in facts else ""
        self._logger.log(
            level,
            "%s%s",
            about,
            _phrase(event),
            exc_info=_lost_to(event),
            extra={"event": type(event).__name__, "component": _component(event), **facts},
        )


def _level(event: csjd.Event) -> int:
    match event:
        case csjd.JobAccepted() | csjd.AttemptStarted() | csjd.JobProgressed():
            return _QUIET
        case csjd.JobEnded(outcome=csjd.Failed() | csjd.TimedOut()):
            return _LOSS
        case csjd.HandlerStuck() | csjd.SessionHalted() | csjd.DeadLetterDropped():
            return _LOSS
        case csjd.JobStoreFailed():
            return _LOSS
        case csjd.JobRetried() | csjd.HandlerDetached() | csjd.JobParked():
            return _TROUBLE
        case _:
            return _NEWS


def _component(event: csjd.Event) -> str:
    match event:
        case csjd.JobAccepted() | csjd.JobRefused() | csjd.DeadLetterRequeued():
            return "admission"
        case (
            csjd.AttemptStarted()
            | csjd.AttemptCancelled()
            | csjd.JobProgressed()
            | csjd.HandlerDetached()
            | csjd.HandlerStuck()
        ):
            return "worker"
        case csjd.JobEvent() | csjd.SessionHalted() | csjd.DeadLetterDropped():
            return "scheduler"
        case csjd.JobStoreOpened() | csjd.JobStoreFailed():
            return "store"
        case _:
            return "dispatcher"


def _phrase(event: csjd.Event) -> str:
    """Return what happened, for a human reader."""
    match event:
        case csjd.JobEnded(outcome=outcome):
            return f"{_name(outcome)} after {_count(outcome.attempts, 'attempt')}"
        case csjd.JobRetried(attempt=attempt, delay=delay, error=error):
            return f"attempt {attempt} failed, next one in {delay:.3g} s: {_describe(error)}"
        case csjd.JobRefused(error=error):
            return f"refused: {_describe(error)}"
        case csjd.JobStoreOpened(recovered=recovered):
            return f"store opened with {_count(recovered, 'unfinished job')}"
        case csjd.JobStoreFailed(error=error):
            return f"store failed, nothing is acknowledged any more: {_describe(error)}"
        case csjd.JobParked(reason=reason):
            return f"parked: {reason}"
        case csjd.DispatcherStopped(report=report):
            return f"stopped with {_count(len(report.unfinished), 'unfinished job')}"
        case _:
            return _spaced(type(event).__name__)


def _facts(event: csjd.Event) -> dict[str, Any]:
    """Return what *event* tells, under the names that logs use."""
    facts: dict[str, Any] = {}
    match event:
        case csjd.JobEvent(job=job) | csjd.SessionHalted(job=job):
            facts.update(_job_facts(job))
        case csjd.DeadLetterDropped(letter=letter):
            facts.update(_job_facts(letter.job), error=_describe(letter.error))
    for name in ("attempt", "worker", "reason", "delay", "timed_out", "type", "session", "grace"):
        value = getattr(event, name, None)
        if value is not None:
            facts[name] = value
    match event:
        case csjd.JobEnded(outcome=outcome):
            facts.update(
                attempt=outcome.attempts, outcome=_name(outcome), duration=outcome.duration
            )
            if not isinstance(outcome, csjd.Succeeded):
                facts["error"] = _describe(outcome.error)
            elif outcome.late:
                facts["late"] = True
        case (
            csjd.JobRetried(error=error)
            | csjd.JobRefused(error=error)
            | csjd.JobStoreFailed(error=error)
        ):
            facts["error"] = _describe(error)
        case csjd.JobProgressed(value=value):
            facts["progress"] = value
        case csjd.HandlerDetached(handler=handler) | csjd.HandlerStuck(handler=handler):
            facts.update(
                worker=handler.worker, duration=handler.running_for, stack=list(handler.stack)
            )
        case csjd.JobStoreOpened():
            facts.update(
                recovered=event.recovered,
                unready=event.unready,
                dead_letters=event.dead_letters,
                quarantined=event.quarantined,
                clean=event.clean,
                notices=list(event.notices),
            )
        case csjd.DispatcherStopped(report=report):
            facts.update(
                finished=len(report.finished),
                unfinished=len(report.unfinished),
                stuck=len(report.stuck),
                duration=report.duration,
            )
    return facts


def _job_facts(job: csjd.Job) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "job_type": job.type,
        "payload_size": _size(job.payload),
        "session": job.session,
    }


def _size(payload: object) -> int | None:
    """Return the bytes in *payload* if they can be known without encoding an object."""
    match payload:
        case None:
            return 0
        case bytes() | bytearray():
            return len(payload)
        case str():
            return len(payload.encode(errors="surrogatepass"))
        case _:
            return None


def _name(outcome: csjd.Outcome) -> str:
    match outcome:
        case csjd.Succeeded():
            return "succeeded"
        case csjd.Failed():
            return "failed"
        case csjd.TimedOut():
            return "timed_out"
        case csjd.Cancelled():
            return "cancelled"


def _lost_to(event: csjd.Event) -> BaseException | None:
    """Return the error whose traceback is worth keeping: that of a job given up."""
    match event:
        case csjd.JobEnded(outcome=(csjd.Failed() | csjd.TimedOut()) as outcome):
            return outcome.error
        case _:
            return None


def _describe(error: BaseException) -> str:
    # A handler's exception is foreign code; an observer that raises would be dropped.
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _spaced(name: str) -> str:
    """Return *name*, a class's, as words: `WorkerAdded` becomes `worker added`."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that `logging` itself gives a record; all others are facts."""


class JsonFormatter(logging.Formatter):
    """
    Formats a record, whoever made it, as one line of JSON.

    The keys `time` (UTC, ISO 8601), `level`, `logger` and `message` come first, then the
    record's own attributes (what was given as `extra`), then `traceback`, if there is one.
    What JSON cannot express is written as its `repr`; the line is pure ASCII.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as JSON, without a line break."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        pairs = (f"{json.dumps(key)}: {_json(value)}" for key, value in line.items())
        return "{" + ", ".join(pairs) + "}"


def _json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # foreign, not finite, circular or too deep
        return json.dumps(_shown(value))


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
