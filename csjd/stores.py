"""
Stores, for those who write one or have to mend one.

Programs only need `csjd.FileJobStore`. Here are the values that a `csjd.JobStore` is told
and tells, for a store of one's own, and the tools behind `python -m csjd store`. What is
built by position is written by position: the order of those fields is part of the file
format.
"""

from csjd._model.storing import (
    NEVER as NEVER,
    Accepted as Accepted,
    DeadLetter as DeadLetter,
    DeadLettered as DeadLettered,
    DeathReason as DeathReason,
    Discarded as Discarded,
    DueKind as DueKind,
    Ended as Ended,
    Halted as Halted,
    Interrupted as Interrupted,
    JobStore as JobStore,
    LiveJob as LiveJob,
    Operation as Operation,
    Placed as Placed,
    Postponed as Postponed,
    Quarantined as Quarantined,
    Recovery as Recovery,
    Requeued as Requeued,
    Resumed as Resumed,
    Started as Started,
    StoreStatistics as StoreStatistics,
    ends_only as ends_only,
)
from csjd._store.file_store import FileJobStore as FileJobStore
from csjd._store.files import (
    Directory as Directory,
    File as File,
    FileLayer as FileLayer,
    Lock as Lock,
    OsFiles as OsFiles,
)
from csjd._store.inspection import (
    FileReport as FileReport,
    Health as Health,
    Inspection as Inspection,
    Verdict as Verdict,
    inspect as inspect,
    records as records,
    require_store as require_store,
    verify as verify,
)
from csjd._store.jobs import to_job as to_job
from csjd._store.lock import LockHeldError as LockHeldError
from csjd._store.payloads import decode_payload as decode_payload, encode_payload as encode_payload
from csjd._store.salvage import Salvage as Salvage, salvage as salvage
from csjd._store.transfer import export_lines as export_lines, import_lines as import_lines
