"""What a job carries: checked against its type's class and size limit, and made its own."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, is_typeddict

import attrs
import msgspec

from csjd._model.errors import InvalidJobError
from csjd._model.handler import HandlerSpec
from csjd._model.job import NO_METADATA, FrozenMetadata, Job
from csjd._runtime.isolation import is_immutable
from csjd._store.jobs import check_storable
from csjd._store.payloads import encode_payload, encode_typed

_SIZED = (bytes, bytearray, str)


def own(job: Job, spec: HandlerSpec, max_payload: int) -> tuple[Job, bool]:
    """
    Return *job* so that nobody outside can change what it carries, checked.

    Args:
        job: The job, as its submitter holds it.
        spec: The settings of its type.
        max_payload: The largest payload allowed, in bytes, where its size is known.

    Returns:
        The job, itself if nothing had to be copied; and whether each attempt needs a
        copy of its own, because the handler could change what it gets.

    Raises:
        InvalidJobError: The payload is too large, is not what its type's handler takes,
            or cannot be copied; or the metadata cannot.
    """
    payload = job.payload
    if spec.payload is not None:
        payload = _checked(payload, spec.payload, max_payload)
    elif type(payload) in _SIZED:
        _check_size(_size(payload), max_payload)
    mutable = not is_immutable(payload)
    if not mutable and not job.metadata and payload is job.payload:
        return job, False
    if mutable and payload is job.payload:
        with _copying("payload"):
            payload = copy.deepcopy(payload)
    metadata = NO_METADATA
    if job.metadata:
        with _copying("metadata"):
            metadata = FrozenMetadata(copy.deepcopy(dict(job.metadata)))
    return attrs.evolve(job, payload=payload, metadata=metadata), mutable or bool(metadata)


@contextmanager
def _copying(field: str) -> Iterator[None]:
    """Say of whatever is raised meanwhile that this *field* cannot be copied."""
    try:
        yield
    except Exception as error:
        raise InvalidJobError(field, f"cannot be copied: {error!r}") from error


def needs_copies(job: Job) -> bool:
    """Whether an attempt at *job* could change what the next one gets."""
    return bool(job.metadata) or not is_immutable(job.payload)


def for_attempt(job: Job) -> Job:
    """Return *job* with a payload and metadata that one attempt may do anything to."""
    return attrs.evolve(
        job, payload=copy.deepcopy(job.payload), metadata=copy.deepcopy(dict(job.metadata))
    )


def _checked(payload: Any, wanted: Any, max_payload: int) -> Any:
    """
    Return *payload* as it comes back from being written and read again as *wanted*.

    That is what a recovery does, so whatever could not be rebuilt then is refused now;
    and what comes back is nobody else's.
    """
    if isinstance(wanted, type) and not is_typeddict(wanted) and not isinstance(payload, wanted):
        raise InvalidJobError("payload", f"must be {wanted.__name__}, got {type(payload).__name__}")
    try:
        encoded = msgspec.msgpack.encode(payload)
        rebuilt = msgspec.msgpack.decode(encoded, type=wanted)
    except Exception as error:  # the class's own code runs here, and may raise anything
        raise InvalidJobError("payload", f"is not what its handler takes: {error}") from error
    _check_size(len(encoded), max_payload)
    return rebuilt


def stored(job: Job, spec: HandlerSpec, max_payload: int) -> bytes:
    """
    Return the payload of a job from `own` as a store keeps it.

    Raises:
        InvalidJobError: The job cannot be stored, or its payload is too large.
    """
    check_storable(job)
    payload = job.payload
    if spec.payload is not None:
        return encode_typed(payload)
    encoded = encode_payload(payload)
    if type(payload) not in _SIZED:
        _check_size(len(encoded), max_payload)
    return encoded


def _size(payload: bytes | bytearray | str) -> int:
    # Text that is no valid Unicode is no reason to refuse it: only stores cannot carry it.
    return len(payload.encode(errors="surrogatepass") if isinstance(payload, str) else payload)


def _check_size(size: int, max_payload: int) -> None:
    if size > max_payload:
        raise InvalidJobError("payload", f"is {size} bytes, the limit is max_payload={max_payload}")
