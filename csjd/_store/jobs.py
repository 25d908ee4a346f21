"""Jobs as a store's `Accepted`, and back."""

from collections.abc import Iterable
from typing import Any, Final

from csjd._core.entry import Entry
from csjd._model.errors import InvalidJobError
from csjd._model.job import NO_METADATA, FrozenMetadata, Job
from csjd._model.storing import Accepted
from csjd._store.payloads import decode_payload, encode_payload, encode_plain

_LOW, _HIGH = -(1 << 63), (1 << 64) - 1


def check_storable(job: Job) -> None:
    """
    Refuse a job whose numbers a store cannot write.

    Raises:
        InvalidJobError: Naming the field.
    """
    for field in _NUMBERS:
        value = getattr(job, field)
        if isinstance(value, int) and not _LOW <= value <= _HIGH:
            raise InvalidJobError(field, f"must fit in 64 bits for a store, got {value!r}")


def to_accepted(
    job: Job, order: int, *, payload: bytes, due: float | None, delay: float | None
) -> Accepted:
    """
    Return what a store keeps of a job.

    Args:
        job: One that `check_storable` let pass.
        order: Its place.
        payload: Its payload, from `encode_payload` or `encode_typed`.
        due: Wall-clock seconds before which it must not start; None: at once.
        delay: Seconds until then, if they are not for its `run_at`.

    Raises:
        InvalidJobError: Its metadata cannot be stored.
    """
    metadata = b""
    if job.metadata:
        metadata = encode_payload(dict(job.metadata), field="metadata")
    return Accepted(
        order=order,
        id=job.id,
        type=job.type,
        payload=payload,
        created_at=job.created_at,
        session=job.session,
        priority=job.priority,
        due=due,
        run_at=job.run_at,
        max_attempts=job.max_attempts,
        timeout=job.timeout,
        metadata=metadata,
        delay=delay,
    )


def plain_accepted(entries: Iterable[Entry]) -> list[Accepted]:
    """
    Return what a store keeps of jobs that `Reservations.reserve_plain` took.

    As `to_accepted` does of each, without looking for what such jobs do not have.
    """
    return [
        Accepted(
            entry.order,
            (job := entry.job).id,
            job.type,
            encode_plain(job.payload),
            job.created_at,
            job.session,
            0,
            None,
            None,
            job.max_attempts,
            job.timeout,
        )
        for entry in entries
    ]


def to_job(accepted: Accepted, payload: Any) -> Job:
    """
    Return the job that was accepted.

    Args:
        accepted: What the store kept.
        payload: Its payload, decoded.

    Raises:
        ValueError: Something in it is no longer what a job may be.
    """
    metadata = decode_payload(accepted.metadata) if accepted.metadata else NO_METADATA
    if type(metadata) is dict:  # whatever else it may be, `Job` refuses
        metadata = FrozenMetadata(metadata)
    return Job(
        type=accepted.type,
        id=accepted.id,
        payload=payload,
        session=accepted.session,
        priority=accepted.priority,
        max_attempts=accepted.max_attempts,
        timeout=accepted.timeout,
        run_at=accepted.run_at,
        created_at=accepted.created_at,
        metadata=metadata,
    )


_NUMBERS: Final = ("priority", "max_attempts", "timeout")
