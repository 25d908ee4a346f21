"""What a store's files come to when it is opened, or looked at as if it were."""

from csjd._model.errors import JobStoreCorruptError, JobStoreLockedError
from csjd._model.storing import Recovery
from csjd._store.files import Directory
from csjd._store.layout import Layout, store_files
from csjd._store.lock import LockHeldError
from csjd._store.pacing import unpaced
from csjd._store.replay import BadFileError, Replayed, replay, whole_layout
from csjd._store.state import State
from csjd._store.tail import TailState


def load(directory: Directory, now: float) -> tuple[State, Replayed, Layout]:
    """
    Replay a store, and let its last owner's end take effect.

    Raises:
        BadFileError, NewerFormatError, OSError: It cannot be opened.
    """
    layout = whole_layout(store_files(directory))
    state = State(now=now)
    replayed = replay(directory, layout, state, unpaced())
    if not replayed.clean:
        state.crashed()
    return state, replayed, layout


def corrupt_error(path: str, error: BadFileError) -> JobStoreCorruptError:
    """Return what callers know in place of a `BadFileError`."""
    return JobStoreCorruptError(path, error.reason, error.file, error.offset)


def locked_error(path: str, error: LockHeldError) -> JobStoreLockedError:
    """Return what callers know in place of a `LockHeldError`."""
    return JobStoreLockedError(path, "locked", error.note or "another process")


def to_recovery(state: State, replayed: Replayed) -> Recovery:
    """Return what was replayed as callers know it; *state* is empty after."""
    notices: list[str] = []
    if replayed.tail.state is TailState.TORN:
        notices.append(
            f"cut {replayed.tail_bytes} bytes at the end of {replayed.tail_file}, from byte "
            f"{replayed.tail_offset}: records that a crash left unfinished, none acknowledged"
        )
    return Recovery(
        live=[job for block in state.live.drain() for job in block],
        remembered=state.remembered,
        dead_letters=list(state.dead.values()),
        halted=frozenset(state.halted),
        quarantined=state.quarantined,
        next_order=state.next_order,
        clean=replayed.clean,
        notices=tuple(notices),
    )
