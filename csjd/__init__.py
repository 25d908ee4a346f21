"""
csjd, the concurrency-safe job dispatcher: background jobs inside a Trio program.

Start with `open_dispatcher`, `Registry` and `Job`.
"""

from csjd._model.config import Config as Config
from csjd._model.errors import (
    BatchLoaderClosedError as BatchLoaderClosedError,
    CacheClosedError as CacheClosedError,
    CsjdError as CsjdError,
    DeadLetterNotFoundError as DeadLetterNotFoundError,
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
    RecordedError as RecordedError,
    RetryAfter as RetryAfter,
    Snooze as Snooze,
    StuckHandlersError as StuckHandlersError,
    WorkerNotFoundError as WorkerNotFoundError,
    WouldDeadlockError as WouldDeadlockError,
    permanent as permanent,
)
from csjd._model.events import (
    AttemptCancelled as AttemptCancelled,
    AttemptStarted as AttemptStarted,
    DeadLetterDiscarded as DeadLetterDiscarded,
    DeadLetterDropped as DeadLetterDropped,
    DeadLetterRequeued as DeadLetterRequeued,
    DispatcherStarted as DispatcherStarted,
    DispatcherStopped as DispatcherStopped,
    DispatcherStopping as DispatcherStopping,
    Event as Event,
    HandlerDetached as HandlerDetached,
    HandlerStuck as HandlerStuck,
    JobAccepted as JobAccepted,
    JobEnded as JobEnded,
    JobEvent as JobEvent,
    JobInterrupted as JobInterrupted,
    JobParked as JobParked,
    JobProgressed as JobProgressed,
    JobRefused as JobRefused,
    JobRetried as JobRetried,
    JobSnoozed as JobSnoozed,
    JobStoreFailed as JobStoreFailed,
    JobStoreOpened as JobStoreOpened,
    Observer as Observer,
    Paused as Paused,
    Resumed as Resumed,
    SessionHalted as SessionHalted,
    WorkerAdded as WorkerAdded,
    WorkerRemoved as WorkerRemoved,
)
from csjd._model.handler import (
    Handler as Handler,
    HandlerSpec as HandlerSpec,
    OnFailure as OnFailure,
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
from csjd._model.metrics import (
    DeadLetter as DeadLetter,
    EndedJob as EndedJob,
    Histogram as Histogram,
    MetricsSnapshot as MetricsSnapshot,
    SessionDistribution as SessionDistribution,
    SessionInfo as SessionInfo,
    StopReport as StopReport,
    StuckHandler as StuckHandler,
    WorkerStats as WorkerStats,
)
from csjd._model.outcome import (
    Cancelled as Cancelled,
    Failed as Failed,
    Outcome as Outcome,
    Succeeded as Succeeded,
    TimedOut as TimedOut,
)
from csjd._model.registry import Registry as Registry
from csjd._model.retry import Retry as Retry, RetryPolicy as RetryPolicy
from csjd._model.storing import JobStore as JobStore
from csjd._runtime.attempt import Attempt as Attempt
from csjd._runtime.dispatcher import Dispatcher as Dispatcher
from csjd._runtime.opening import open_dispatcher as open_dispatcher
from csjd._runtime.receipts import BatchReport as BatchReport, Receipt as Receipt
from csjd._store.file_store import FileJobStore as FileJobStore
from csjd.batching import (
    BatchFetchAbandoned as BatchFetchAbandoned,
    BatchFetchFailed as BatchFetchFailed,
    BatchFetchStarted as BatchFetchStarted,
    BatchFetchSucceeded as BatchFetchSucceeded,
    BatchLoader as BatchLoader,
    BatchLoaderEvent as BatchLoaderEvent,
    BatchLoaderStatistics as BatchLoaderStatistics,
    open_batch_loader as open_batch_loader,
)
from csjd.caching import (
    CacheEntryEvicted as CacheEntryEvicted,
    CacheEvent as CacheEvent,
    CacheLoadAbandoned as CacheLoadAbandoned,
    CacheLoadFailed as CacheLoadFailed,
    CacheLoadStarted as CacheLoadStarted,
    CacheLoadSucceeded as CacheLoadSucceeded,
    CacheStatistics as CacheStatistics,
    TTLCache as TTLCache,
    open_cache as open_cache,
)
