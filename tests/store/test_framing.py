"""How bytes lie in a file, piece by piece: headers, records, tails and names."""

import struct
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from csjd._store import framing
from csjd._store.framing import (
    HEADER_BYTES,
    MARK,
    RECORD_BYTES,
    BytesSource,
    DamageError,
    FileKind,
    Header,
    NewerFormatError,
    Record,
    RecordKind,
    claims_of_durability,
    pack_record,
    record_at,
    sound_records,
    unpack_header,
)
from csjd._store.layout import lay_out
from csjd._store.tail import Tail, TailState, judge_tail

HEADER = Header(
    kind=FileKind.SEGMENT, store_id=bytes(range(16)), first=7, founded=9, salt=b"saltsalt"
)
SEED = HEADER.seed


def log(*bodies: bytes, first: int = 7, durable: int = 0) -> bytes:
    """Return records with these bodies, numbered from *first*."""
    return b"".join(
        pack_record(number, durable, RecordKind.OPERATIONS, body, seed=SEED)
        for number, body in enumerate(bodies, first)
    )


def read(data: bytes, *, first: int = 7, seed: int = SEED) -> list[Record]:
    return list(sound_records(BytesSource(data), 0, first, seed))


# --- headers ---------------------------------------------------------------------------


def test_header_comes_back_as_it_was() -> None:
    data = HEADER.pack()
    assert len(data) == HEADER_BYTES == 64
    assert unpack_header(data) == HEADER
    assert unpack_header(data + b"more") == HEADER


def test_every_flipped_bit_of_a_header_is_noticed() -> None:
    data = HEADER.pack()
    for at in range(8 * HEADER_BYTES):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(DamageError) as caught:
            unpack_header(bytes(flipped))
        assert caught.value.offset == 0


def test_header_cut_short_says_where_it_ends() -> None:
    for size in range(HEADER_BYTES):
        with pytest.raises(DamageError, match="shorter") as caught:
            unpack_header(HEADER.pack()[:size])
        assert caught.value.offset == size


@pytest.mark.parametrize(
    "changes", [{"major": 2}, {"kind": 77}], ids=["a later version", "an unknown kind of file"]
)
def test_sound_header_of_another_version_is_no_damage(changes: dict[str, Any]) -> None:
    with pytest.raises(NewerFormatError, match="use the version that wrote it"):
        unpack_header(attrs.evolve(HEADER, **changes).pack())


def test_later_minor_version_can_be_read() -> None:
    assert unpack_header(attrs.evolve(HEADER, minor=9).pack()).minor == 9


def test_foreign_file_with_a_right_checksum_is_not_one_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(framing, "MAGIC", b"notcsjd\x00")
        foreign = HEADER.pack()
    with pytest.raises(DamageError, match="not one of a store"):
        unpack_header(foreign)


# --- records ---------------------------------------------------------------------------


def test_records_come_back_in_order_with_their_places() -> None:
    bodies = (b"", b"x", bytes(1000))
    records = read(log(*bodies, durable=3))
    assert tuple(record.body for record in records) == bodies
    assert [record.number for record in records] == [7, 8, 9]
    assert {record.durable for record in records} == {3}
    assert records[0].offset == 0
    assert all(one.end == other.offset for one, other in pairwise(records))


def test_records_longer_than_the_window_are_read_whole() -> None:
    bodies = [bytes([number]) * (framing._WINDOW + number) for number in range(3)]
    assert [record.body for record in read(log(*bodies))] == bodies


def test_reading_ends_before_the_first_record_that_is_not_sound() -> None:
    data = log(b"one", b"two", b"three")
    second = read(data)[1]
    for at in range(second.offset, second.end):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        assert [record.body for record in read(bytes(damaged))] == [b"one"]
    for size in range(second.offset, second.end):
        assert len(read(data[:size])) == 1


def test_records_of_another_salt_or_number_are_not_believed() -> None:
    data = log(b"one", b"two")
    assert read(data, seed=SEED ^ 1) == []
    assert read(data, first=8) == []
    assert [record.number for record in read(log(b"one") + log(b"two", first=9))] == [7]


def test_length_beyond_the_file_allocates_nothing() -> None:
    asked: list[int] = []

    class Watched(BytesSource):
        def read(self, offset: int, count: int) -> bytes:
            asked.append(count)
            return super().read(offset, count)

    data = bytearray(log(b"one"))
    data[8:12] = struct.pack("<I", 0xFFFFFFF0)
    assert list(sound_records(Watched(bytes(data)), 0, 7, SEED)) == []
    assert max(asked) <= framing._WINDOW


def test_source_that_shrinks_ends_the_reading() -> None:
    data = log(b"one", b"two")
    shrunk = SimpleNamespace(size=lambda: len(data), read=lambda offset, count: data[offset:20])
    assert list(sound_records(shrunk, 0, 7, SEED)) == []


def test_record_at_a_place_is_found_whatever_its_number() -> None:
    data = b"junk" + log(b"body", first=99)
    found = record_at(data, 4, SEED)
    assert found is not None
    assert (found.number, found.body, found.offset, found.end) == (99, b"body", 4, len(data))
    for wrong in (0, 3, 5, len(data) - 1, len(data)):
        assert record_at(data, wrong, SEED) is None
    assert record_at(data[:-1], 4, SEED) is None
    assert record_at(data, 4, SEED ^ 1) is None


def test_body_longer_than_a_record_can_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_BODY", 10)
    pack_record(1, 0, 1, bytes(10), seed=SEED)
    with pytest.raises(OverflowError, match="11 bytes"):
        pack_record(1, 0, 1, bytes(11), seed=SEED)


# --- tails -----------------------------------------------------------------------------


def judged(rest: bytes, *, missing: int = 8, proven: int = 0) -> Tail:
    return judge_tail(rest, missing=missing, proven=proven, seed=SEED)


def test_nothing_or_only_zeros_is_the_end() -> None:
    assert judged(b"") == judged(bytes(5000)) == Tail(TailState.END)


def test_bytes_that_nobody_vouches_for_are_torn() -> None:
    whole = log(b"later", first=9, durable=7)  # sound, and says nothing of record 8
    for rest in (b"\x01", bytes(10) + b"\x01", b"junk" + whole, MARK * 20, whole[:-1]):
        assert judged(rest) == Tail(TailState.TORN)


def test_records_known_to_be_synced_are_rotten_when_they_are_gone() -> None:
    for rest in (b"", bytes(100), b"junk"):
        assert judged(rest, proven=8).state is TailState.ROTTEN
        assert judged(rest, proven=7).state is not TailState.ROTTEN


def test_later_record_that_vouches_makes_it_rotten_and_is_named() -> None:
    witness = log(b"later", first=9, durable=8)
    assert judged(b"junk!" + witness) == Tail(TailState.ROTTEN, 5)
    damaged = bytearray(witness)
    damaged[-1] ^= 1
    assert judged(b"junk!" + bytes(damaged)) == Tail(TailState.TORN)


def test_claims_that_cannot_be_true_are_no_witnesses() -> None:
    own_number = pack_record(8, 8, 1, b"", seed=SEED)  # durable before it was written
    too_far = pack_record(10**9, 8, 1, b"", seed=SEED)  # more records than fit between
    foreign = pack_record(9, 8, 1, b"", seed=SEED ^ 5)
    for false in (own_number, too_far, foreign):
        assert list(claims_of_durability(false, SEED, 8)) == []
    many = bytes(2 * RECORD_BYTES) + pack_record(10, 9, 1, b"", seed=SEED)
    assert list(claims_of_durability(many, SEED, 8)) == [2 * RECORD_BYTES]


def test_claim_inside_another_records_body_is_found() -> None:
    witness = pack_record(9, 8, 1, b"", seed=SEED)
    data = bytearray(log(witness, first=8))
    data[4] ^= 1  # the outer one is damaged; what it carries is sound
    assert list(claims_of_durability(bytes(data), SEED, 8)) == [RECORD_BYTES]


# --- names -----------------------------------------------------------------------------


def wal(number: int) -> str:
    return f"wal-{number:020d}"


def snap(number: int) -> str:
    return f"snap-{number:020d}"


def test_names_that_are_not_ours_are_passed_over() -> None:
    layout = lay_out(["LOCK", "lost+found", "wal-1", "snap-x", wal(1) + "~", "core"])
    assert (layout.snapshot, layout.segments, layout.obsolete) == (None, (), ())
    assert layout.temporary == ()


def test_segments_without_a_snapshot_begin_with_the_first_record() -> None:
    assert lay_out([wal(10), wal(1), wal(5)]).segments == (1, 5, 10)
    with pytest.raises(DamageError, match="record 1 is missing"):
        lay_out([wal(2)])


@pytest.mark.parametrize(
    ("names", "segments", "obsolete"),
    [
        ([snap(9), wal(10)], (10,), ()),
        ([snap(9), wal(1), wal(10)], (10,), (wal(1),)),
        ([snap(9), wal(1), wal(9), wal(10), wal(11)], (10, 11), (wal(1), wal(9))),
        ([snap(4), snap(9), wal(5), wal(10)], (10,), (snap(4), wal(5))),
    ],
)
def test_what_a_snapshot_covers_is_obsolete(
    names: list[str], segments: tuple[int, ...], obsolete: tuple[str, ...]
) -> None:
    layout = lay_out(reversed(names))
    assert (layout.snapshot, layout.segments, layout.obsolete) == (9, segments, obsolete)


@pytest.mark.parametrize(
    "names",
    [
        [snap(9)],
        [snap(9), wal(5)],
        [snap(9), wal(11)],
        [snap(9), wal(12), wal(20)],
        [snap(9), wal(1), wal(8), wal(12)],
    ],
)
def test_segment_that_must_be_there_and_is_not_is_damage(names: list[str]) -> None:
    with pytest.raises(DamageError, match="record 10 is missing"):
        lay_out(names)


def test_unfinished_files_are_told_apart() -> None:
    layout = lay_out([wal(1), wal(5) + ".tmp", snap(4) + ".tmp"])
    assert layout.segments == (1,)
    assert layout.temporary == (snap(4) + ".tmp", wal(5) + ".tmp")
