"""
Torn or rotten: what it means that a log stops being readable somewhere.

A crash may cut the last records short, lose them, or lose one and keep the next, as long
as they were never synced: that is a *torn* tail, and cutting it loses nothing that was
acknowledged. The same sight in synced records is damage, *rotten*, and cutting there
would lose acknowledged jobs in silence. Where the bad spot lies does not tell the two
apart, nor does whether sound records follow it. What does is what the log itself knows
to have been synced: each record carries the highest number that was, when it was written.

The last batch alone has no later record to vouch for it. A seal, written when the store
is closed or idle, shortens that moment of doubt.
"""

import enum
from typing import Final

import attrs

from csjd._store.framing import claims_of_durability


class TailState(enum.Enum):
    """What lies behind a log's last sound record."""

    END = "nothing"
    TORN = "records that a crash cut short; none of them was ever acknowledged"
    ROTTEN = "damage to records that were synced"


@attrs.frozen
class Tail:
    """The verdict."""

    state: TailState
    witness: int = 0
    """If rotten: where, from the first unsound byte, the record begins that proves it."""


def judge_tail(rest: bytes, *, missing: int, proven: int, seed: int) -> Tail:
    """
    Say what it means that the log's sound records stop here.

    Args:
        rest: What is in the file from there on.
        missing: The number the next record would have.
        proven: The highest number known to have been synced, by the sound records, the
            header and the next file.
        seed: Of the file's checksums.
    """
    if proven >= missing:
        return Tail(TailState.ROTTEN)
    if not rest.strip(_ZERO):  # room allocated ahead and not used yet
        return Tail(TailState.END)
    for offset in claims_of_durability(rest, seed, missing):
        return Tail(TailState.ROTTEN, offset)
    return Tail(TailState.TORN)


_ZERO: Final = b"\x00"
