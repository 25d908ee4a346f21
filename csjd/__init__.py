"""
csjd, the concurrency-safe job dispatcher: background jobs inside a Trio program.

Start with `open_dispatcher`, `Registry` and `Job`.
"""

from csjd._model.config import Config as Config
from csjd._model.errors import (
    BatchLoaderClosedError as BatchLoaderClosedError,
    CsjdError as CsjdError,
    DispatcherClosedError as DispatcherClosedError,
    DispatcherCrashedError as DispatcherCrashedError,
    DispatcherNotStartedError as DispatcherNotStartedError,
    DuplicateJobError as DuplicateJobError,
    HandlerNotFoundError as HandlerNotFoundError,
    InvalidJobError as InvalidJobError,
    JobCancelledError as JobCancelledError,
    JobFailedError as JobFailedError,
    JobStoreClosedError as JobStoreClosedError,
    JobStoreCorruptError as JobStoreCorruptError,
    JobStoreError as JobStoreError,
    JobStoreFullError as JobStoreFullError,
    JobStoreLockedError as JobStoreLockedError,
    MissingBatchResultError as MissingBatchResultError,
    PermanentError as PermanentError,
    QueueFullError as QueueFullError,
    RetryAfter as RetryAfter,
    Snooze as Snooze,
    StuckHandlersError as StuckHandlersError,
    WouldDeadlockError as WouldDeadlockError,
    permanent as permanent,
)
from csjd._model.job import Job as Job
from csjd._model.lifecycle import (
    DISPATCHER_LIFECYCLE as DISPATCHER_LIFECYCLE,
    LIFECYCLE as LIFECYCLE,
    DispatcherState as DispatcherState,
    DispatcherStep as DispatcherStep,
    JobState as JobState,
    JobStep as JobStep,
)
from csjd._model.outcome import (
    Cancelled as Cancelled,
    Failed as Failed,
    Outcome as Outcome,
    Succeeded as Succeeded,
    TimedOut as TimedOut,
)
from csjd._model.retry import Retry as Retry, RetryPolicy as RetryPolicy
from csjd._model.storing import JobStore as JobStore
from csjd._store.file_store import FileJobStore as FileJobStore
