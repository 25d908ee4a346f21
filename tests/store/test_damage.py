"""T3, T4, T5: prefixes, flipped bits, and anything else a file may have become."""

import random
import resource
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, pairwise

import pytest

from csjd._model.errors import JobStoreCorruptError, JobStoreError
from csjd._store.batches import decode_batch, decode_entries
from csjd._store.file_store import FileJobStore
from csjd._store.framing import (
    HEADER_BYTES,
    MARK,
    BytesSource,
    DamageError,
    NewerFormatError,
    sound_records,
    unpack_header,
)
from csjd._store.payloads import decode_payload
from csjd._store.tail import judge_tail
from csjd.testing.simfs import SimFs
from csjd.testing.stores import Summary, accepted, summarize
from tests.store.battery import (
    EIO,
    NOW,
    Disk,
    holds_a_store,
    make_disk,
    make_scarred_disk,
    open_store,
    recovered,
    salvaged,
    without_crashes,
)
from tests.store.conftest import FULL, Report


@pytest.fixture(scope="module", params=[True, False], ids=["sealed", "unsealed"])
def store_on_disk(request: pytest.FixtureRequest) -> tuple[bool, Disk, list[Summary]]:
    disk, summaries = make_disk(11, close=request.param)
    assert sum(map(len, disk.values())) >= 3000
    assert {name[:4] for name in disk} >= {"snap", "wal-"}
    return request.param, disk, summaries


def test_every_prefix_is_a_shorter_history_or_refused(
    store_on_disk: tuple[bool, Disk, list[Summary]], report: Report
) -> None:
    sealed, disk, summaries = store_on_disk
    histories = [without_crashes(summary) for summary in summaries]
    states = 0
    for name, data in disk.items():
        last = -1
        for size in range(len(data)):
            states += 1
            summary = without_crashes(recovered(disk | {name: data[:size]}))
            if summary is None:
                continue
            at = histories.index(summary, max(last, 0))  # never shorter than with fewer bytes
            last = at
        if not name.startswith("wal") or name != max(disk):
            assert last == -1, f"a shorter {name} was believed"
    report(f"T3 prefixes ({'sealed' if sealed else 'unsealed'})", states, seed=11)


def test_every_flipped_bit_is_harmless_or_reported(
    store_on_disk: tuple[bool, Disk, list[Summary]], report: Report
) -> None:
    sealed, disk, summaries = store_on_disk
    histories = [without_crashes(summary) for summary in summaries]
    flips = refused = ambiguous = 0
    for name, data in disk.items():
        for at in range(len(data)):
            for bit in range(8) if FULL or at % 2 == 0 else (at % 8,):
                flipped = bytearray(data)
                flipped[at] ^= 1 << bit
                summary = without_crashes(recovered(disk | {name: bytes(flipped)}))
                flips += 1
                if summary is None:
                    refused += 1
                elif summary != histories[-1]:
                    ambiguous += 1
                    assert not sealed, f"{name} byte {at} bit {bit}: silently lost"
                    assert summary == histories[-2], f"{name} byte {at} bit {bit}: wrong state"
    assert refused > flips * (0.9 if sealed else 0.5)
    kind = "sealed" if sealed else f"unsealed, {ambiguous} in the last batch"
    report(f"T4 flipped bits ({kind}; {refused} refused)", flips, seed=11)


def test_segment_that_a_compaction_left_over_does_not_stand_in_for_the_one_after_the_snapshot() -> (
    None
):
    fs = SimFs(time=NOW)
    store = FileJobStore("sim", files=fs)
    store.recover()
    store.commit([accepted(1)])
    fs.fail = lambda kind, _: OSError(EIO, "no") if kind == "unlink" else None
    with pytest.raises(JobStoreError):
        store.compact()
    store.commit([accepted(2)])
    store.close()
    disk = fs.files()
    assert len(disk) == 3
    del disk[max(disk)]
    with pytest.raises(JobStoreCorruptError, match="the segment with record 4 is missing"):
        open_store(SimFs(disk, time=NOW)).recover()


# --- fuzzing ---------------------------------------------------------------------------


def mutations(disk: Disk, other: Disk, rng: random.Random) -> Iterator[Disk]:
    """Yield damaged copies for ever: by bytes, by records, by files."""
    names = sorted(disk)
    while True:
        name = rng.choice(names)
        data = bytearray(disk[name])
        for _ in range(rng.choice((1, 1, 2, 8))):
            _mutate(data, rng)
        changed = dict(disk)
        changed[name] = bytes(data)
        kind = rng.randrange(20)
        if kind == 0:
            changed[name] = rng.choice(list(other.values()))
        elif kind == 1:
            del changed[name]
        elif kind == 2:
            changed[rng.choice(names)] = bytes(data)
        yield changed


def _mutate(data: bytearray, rng: random.Random) -> None:
    size = len(data) or 1
    start = rng.randrange(size)
    end = min(size, start + rng.choice((1, 4, 8, 64, 512)))
    match rng.randrange(7):
        case 0:
            data[start:end] = rng.randbytes(end - start)
        case 1:
            data[start:end] = bytes(end - start)
        case 2:
            del data[start:end]
        case 3:
            data[start:start] = data[start:end]
        case 4:
            data[start:end] = b"\xff" * (end - start)
        case 5:
            _swap_records(data, rng)
        case _:
            data[start:start] = MARK


def _swap_records(data: bytearray, rng: random.Random) -> None:
    """Put one record in another's place: swapped, repeated or left out."""
    starts = [at for at in range(HEADER_BYTES, len(data)) if data.startswith(MARK, at)]
    if len(starts) < 3:
        return
    bounds = [*starts, len(data)]
    pieces = [bytes(data[a:b]) for a, b in pairwise(bounds)]
    one, two = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    match rng.randrange(3):
        case 0:
            pieces[one], pieces[two] = pieces[two], pieces[one]
        case 1:
            pieces[one] = pieces[two]
        case _:
            del pieces[one]
    data[starts[0] :] = b"".join(pieces)


def test_fuzzed_stores_open_or_refuse(report: Report) -> None:
    rng = random.Random(5)
    disk, summaries = make_disk(3, batches=30, close=True)
    other, _ = make_disk(4, batches=10, close=True)
    possible = {without_crashes(summary) for summary in summaries}
    count = 200_000 if FULL else 20_000
    for number, damaged in zip(range(count), mutations(disk, other, rng), strict=False):
        store = open_store(SimFs(damaged, time=NOW))
        try:
            summary = summarize(store.recover())
        except JobStoreError:
            continue
        if any(name in damaged and name.startswith("wal") for name in disk):
            assert without_crashes(summary) in possible, f"input {number}: invented state"
    report("T5 fuzzed stores", count, seed=5)


def damaged_stores(seed: int, count: int) -> Iterator[Disk]:
    """Yield damaged copies of stores whose past is long and bad, many of each."""
    rng = random.Random(seed)
    other, _ = make_disk(4, batches=10, close=True)
    each = 100
    for history in range(count // each):
        yield from islice(mutations(make_scarred_disk(history), other, rng), each)


def test_fuzzed_stores_salvage_to_what_they_recover_to(report: Report) -> None:
    count = 20_000 if FULL else 2_000
    opened = 0
    for number, damaged in enumerate(damaged_stores(8, count)):
        if not holds_a_store(damaged):
            continue
        saved, recovery = salvaged(damaged)
        told = recovered(damaged)
        if told is None:
            assert saved.lost or saved.problems, f"input {number}: refused, and nothing said"
        else:
            opened += 1
            assert summarize(recovery) == told, f"input {number}: {saved}"
    assert count * 0.1 < opened < count * 0.9
    report("T5 fuzzed stores, salvaged", count, seed=8)


def test_fuzzed_parsers_raise_nothing_unexpected(report: Report) -> None:
    rng = random.Random(6)
    disk, _ = make_disk(3, batches=20, close=False)
    samples = [bytes(data) for data in disk.values()] + [b"", bytes(64), MARK * 50]
    header = unpack_header(disk[min(disk)])
    count = 800_000 if FULL else 80_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        sample = bytearray(rng.choice(samples))
        start = rng.randrange(len(sample) + 1)
        sample = sample[start : start + 300]
        _mutate(sample, rng)
        _parse_anything(bytes(sample), header.seed)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 64, f"{grown} MB"
    report("T5 fuzzed parsers", count, seed=6)


def _parse_anything(data: bytes, seed: int) -> None:
    with suppress(DamageError, NewerFormatError):
        unpack_header(data)
    for _ in sound_records(BytesSource(data), 0, 1, seed):
        pass
    judge_tail(data, missing=2, proven=1, seed=seed)
    for decode in (decode_batch, decode_entries):
        with suppress(NewerFormatError):
            decode(data)
    with suppress(ValueError):
        decode_payload(data)
