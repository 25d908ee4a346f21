"""What `salvage` takes from a damaged store, and what it says of the rest."""

import errno
from pathlib import Path

import attrs
import msgspec
import pytest

from csjd._model.errors import JobStoreError
from csjd._model.storing import Ended, LiveJob, Placed, Recovery, Started
from csjd._store.batches import encode_batch
from csjd._store.file_store import FileJobStore
from csjd._store.framing import (
    HEADER_BYTES,
    BytesSource,
    FileKind,
    Header,
    pack_record,
    sound_records,
    unpack_header,
)
from csjd._store.inspection import records as read_records
from csjd._store.salvage import Salvage, salvage
from csjd._store.segment import segment_name
from csjd._store.snapshot import snapshot_name
from csjd._store.tail import TailState
from csjd._store.transfer import export_lines, import_lines
from csjd._store.wreck import Remains, records_that_count
from csjd.testing.simfs import SimFs, _SimFile
from csjd.testing.stores import accepted, summarize
from tests.store.battery import (
    NOW,
    Disk,
    SimFsPair,
    make_disk,
    open_store,
    recovered,
    salvaged,
)
from tests.store.conftest import Report


def damage(disk: Disk, name: str, at: int) -> Disk:
    data = bytearray(disk[name])
    data[at] ^= 0x10
    return disk | {name: bytes(data)}


def damage_record(disk: Disk, name: str, number: int) -> Disk:
    """Return the disk with one record of a file unsound: of a snapshot, counted from 1."""
    header = unpack_header(disk[name])
    first = header.first if header.kind is FileKind.SEGMENT else 1
    records = sound_records(BytesSource(disk[name]), HEADER_BYTES, first, header.seed)
    [at] = [record.offset for record in records if record.number == number]
    return damage(disk, name, at)


def store_on(fs: SimFs) -> FileJobStore:
    """Open a store that compacts only when it is told to."""
    store = FileJobStore("sim", files=fs)
    store.recover()
    return store


def living(disk: Disk) -> list[int]:
    return [job.order for job in salvaged(disk)[1].live]


# --- stores that open ------------------------------------------------------------------


def lives(*ends: bool) -> Disk:
    """Return a store that had one life for each of *ends*: whether that was closed."""
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(1), accepted(2)])
    for closed in ends:
        store.commit([Started(1)])
        if closed:
            store.close()
        fs.kill()
        store = store_on(fs)
    fs.kill()
    return fs.files()


@pytest.mark.parametrize(
    ("ends", "crashes"),
    [([True], 0), ([False] * 3, 3), ([False, True, False], 2), ([True, True, False], 1)],
)
def test_salvage_counts_crashes_as_an_opening_does(ends: list[bool], crashes: int) -> None:
    disk = lives(*ends)
    saved, recovery = salvaged(disk)
    assert [job.crashes for job in recovery.live] == [crashes, 0]
    assert summarize(recovery) == recovered(disk)
    assert (saved.lost, saved.problems) == ((), ())


@pytest.mark.parametrize("close", [True, False], ids=["sealed", "unsealed"])
def test_salvage_of_a_sound_store_gives_what_it_recovers_to(close: bool) -> None:
    for seed in range(5):
        disk, summaries = make_disk(seed, close=close)
        saved, recovery = salvaged(disk)
        assert (saved.lost, saved.problems) == ((), ())
        assert summarize(recovery) == summaries[-1] == recovered(disk)


def test_salvage_leaves_a_torn_tail_out_and_says_so() -> None:
    disk, _ = make_disk(2, close=False)
    name = max(disk)
    torn = disk | {name: disk[name].rstrip(b"\0")[:-5]}
    saved, recovery = salvaged(torn)
    assert summarize(recovery) == recovered(torn)
    [problem] = saved.problems
    assert problem.startswith(f"{name}: left out the last ")
    assert saved.lost == ()


def torn_store() -> tuple[SimFs, str]:
    """Return a disk after a crash: records 3 to 5 unsynced, the first of them not written."""
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(1)])
    name = segment_name(1)
    begin = len(fs.files()[name].rstrip(b"\0"))
    store.commit([accepted(2, id="never acknowledged")], sync=False)
    end = len(fs.files()[name].rstrip(b"\0"))
    store.commit([accepted(3, id="never acknowledged either")], sync=False)
    store.commit([Ended(2, 0.0)], sync=False)
    data = bytearray(fs.files()[name])
    data[begin:end] = bytes(end - begin)
    return SimFs(fs.files() | {name: bytes(data)}, time=NOW), name


def test_salvage_leaves_out_what_lay_behind_a_torn_spot_when_the_store_went_on() -> None:
    fs, _ = torn_store()
    store = store_on(fs)
    store.commit([accepted(2, id="acknowledged")])
    fs.kill()
    saved, recovery = salvaged(fs.files())
    assert [job.accepted.id for job in recovery.live] == ["job-1", "acknowledged"]
    assert (saved.lost, saved.problems) == ((), ())


def test_salvage_leaves_it_out_too_where_the_next_segment_is_lost() -> None:
    fs, old = torn_store()
    store = store_on(fs)  # record 3
    store.commit([accepted(2, id="acknowledged")])
    store.close()
    store = store_on(fs)
    store.commit([accepted(3, id="and this")])
    store.close()
    disk = fs.files()
    middle, last = sorted(set(disk) - {old})
    for lost in (damage(disk, middle, 20), {name: disk[name] for name in (old, last)}):
        saved, recovery = salvaged(lost)
        assert [job.accepted.id for job in recovery.live] == ["job-1", "and this"]
        assert saved.lost == ((3, 4),)  # the seal after them was copied


# --- damaged segments ------------------------------------------------------------------


def test_salvage_loses_only_what_is_damaged(report: Report) -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    orders = range(1, 31)
    for order in orders:
        store.commit([accepted(order)])
        if order == 15:
            store.compact()
    store.close()
    disk = fs.files()
    states = 0
    for name, data in disk.items():
        for at in range(0, len(data), 5):
            saved, recovery = salvaged(damage(disk, name, at))
            in_header = at < 64
            lost = set(orders) - {job.order for job in recovery.live}
            if not in_header and name.startswith("wal"):
                assert len(lost) <= 1, f"{name} byte {at}"
            assert bool(lost) <= bool(saved.lost or saved.problems), f"{name} byte {at}"
            states += 1
    report("salvage of damaged stores", states)


def test_salvage_without_a_segments_header_says_which_records_are_gone() -> None:
    fs = SimFs(time=NOW)
    for _ in range(3):  # each opening begins a segment
        store = FileJobStore("sim", files=fs)
        recovery = store.recover()
        store.commit([accepted(recovery.next_order + each) for each in range(5)])
        store.close()
    disk = fs.files()
    segments = sorted(name for name in disk if name.startswith("wal-"))
    assert len(segments) == 3
    firsts = [int(name[4:]) for name in segments]
    orders = [range(1 + 5 * life, 6 + 5 * life) for life in range(3)]
    for lost in range(3):
        for at in range(64):
            name = segments[lost]
            saved, recovery = salvaged(damage(disk, name, at))
            left = [job.order for job in recovery.live]
            assert left == [n for life in range(3) if life != lost for n in orders[life]]
            assert [problem.split(":")[0] for problem in saved.problems] == [name]
            if lost == 2:  # behind the last record there is no gap to see
                assert saved.lost == ()
            else:
                [(first, last)] = saved.lost
                assert firsts[lost] <= first <= last == firsts[lost + 1] - 1


def test_copy_that_a_segment_was_founded_with_is_taken_from_the_one_before() -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(1)])
    store.commit([accepted(2)], sync=False)
    fs.kill()
    store_on(fs).close()  # begins with record 3, which might not have been synced
    fs.kill()
    disk = fs.files()
    old, new = sorted(disk)
    assert unpack_header(disk[new]).first == 3
    saved, recovery = salvaged(damage_record(disk, new, 3))
    assert [job.order for job in recovery.live] == [1, 2]
    assert saved.lost == ()
    assert living({old: disk[old]}) == [1, 2]


def test_end_of_a_log_that_is_known_to_be_missing_is_lost() -> None:
    disk, _ = make_disk(11, close=True)
    last = max(disk)
    header = unpack_header(disk[last])
    saved, _ = salvaged(disk | {last: disk[last][:HEADER_BYTES]})
    assert saved.lost == ((header.first, header.founded),)


def test_missing_segment_behind_a_snapshot_is_a_problem() -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(1)])
    store.compact()
    store.close()
    disk = fs.files()
    [snapshot] = [name for name in disk if name.startswith("snap")]
    saved, recovery = salvaged({snapshot: disk[snapshot]})
    assert len(recovery.live) == 1
    assert saved.problems == ("the segment with record 4 is missing",)


# --- damaged snapshots -----------------------------------------------------------------


def compacted(fs: SimFs) -> str:
    """Compact the store on a disk that keeps what that replaces; return the snapshot's name."""
    store = store_on(fs)
    fs.fail = lambda kind, _: OSError(errno.EIO, "no") if kind == "unlink" else None
    with pytest.raises(Exception, match="no"):
        store.compact()
    fs.fail = None
    store.commit([accepted(1001)])
    store.close()
    return max(name for name in fs.files() if name.startswith("snap"))


def test_records_stand_in_for_the_damaged_snapshot_that_covers_them() -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(order) for order in range(1, 251)])  # more than a snapshot's record
    store.commit([Started(1), Ended(2, 0.0)])
    fs.kill()
    name = compacted(fs)
    disk = fs.files()
    for number in (1, 3, 4):  # two of entries, and the footer
        damaged = damage_record(disk, name, number)
        saved, recovery = salvaged(damaged)
        assert summarize(recovery) == recovered(disk)
        assert saved.lost == ()
        assert [problem.split(":")[0] for problem in saved.problems] == [name]


def test_damaged_snapshot_and_the_records_before_it_are_put_together() -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    for hundred in range(3):
        store.commit([accepted(100 * hundred + each) for each in range(1, 101)])
    store.commit([Ended(order, 0.0) for order in range(1, 301, 3)])
    fs.kill()
    name = compacted(fs)
    disk = fs.files()
    left = [order for order in range(1, 301) if order % 3 != 1]
    assert living(disk) == [*left, 1001]
    # Without the first hundred's acceptance, and what the snapshot has of the second half.
    damaged = damage_record(damage_record(disk, segment_name(1), 2), name, 2)
    saved, recovery = salvaged(damaged)
    assert [job.order for job in recovery.live] == [*left, 1001]
    assert [problem.split(":")[0] for problem in saved.problems] == [segment_name(1), name]
    assert saved.lost == ()  # up to the snapshot it is told by what it holds


def test_job_that_moved_is_not_there_twice_when_snapshot_and_records_are_put_together() -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(1), accepted(2)])
    store.commit([Placed(1, 3)])
    store.commit([accepted(order) for order in range(4, 150)])
    fs.kill()
    name = compacted(fs)
    damaged = damage_record(damage_record(fs.files(), segment_name(1), 3), name, 2)
    live = salvaged(damaged)[1].live
    assert [job.accepted.id for job in live if job.order < 4] == ["job-2", "job-1"]


def test_records_of_an_imported_store_do_not_stand_in_for_a_snapshot_of_it() -> None:
    source, fs = SimFs(time=NOW), SimFs(time=NOW)
    store = store_on(source)
    store.commit([accepted(order) for order in range(1, 201)])
    store.close()
    import_lines(export_lines("sim", files=source), "sim", files=fs)
    store = store_on(fs)
    store.commit([accepted(500)])
    store.close()
    [imported] = [name for name in fs.files() if name.startswith("snap")]
    snapshot = compacted(fs)
    disk = {name: data for name, data in fs.files().items() if name != imported}
    saved, recovery = salvaged(damage_record(disk, snapshot, 2))
    assert [job.order for job in recovery.live] == [*range(1, 101), 500, 1001]
    assert saved.problems
    assert living(damage_record(fs.files(), snapshot, 2)) == [*range(1, 201), 500, 1001]


def test_damaged_snapshot_alone_gives_what_is_sound_in_it() -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(order) for order in range(1, 301)])
    store.compact()
    store.close()
    [name] = [name for name in fs.files() if name.startswith("snap")]
    saved, recovery = salvaged(damage_record(fs.files(), name, 2))
    assert [job.order for job in recovery.live] == [*range(1, 101), *range(201, 301)]
    assert recovery.next_order == 301
    assert saved.problems == (f"{name}: an unreadable record in a snapshot; 200 entries are sound",)


# --- files where they do not belong ----------------------------------------------------


def jobs_of(prefix: str, commits: int, seed: int) -> Disk:
    fs = SimFs(seed=seed, time=NOW)
    store = store_on(fs)
    for order in range(1, commits + 1):
        store.commit([accepted(order, id=f"{prefix}-{order}")])
    store.close()
    return fs.files()


def ids(disk: Disk) -> list[str]:
    return [job.accepted.id for job in salvaged(disk)[1].live]


def test_file_of_another_store_is_left_out() -> None:
    mine, [other] = jobs_of("mine", 3, 1), jobs_of("other", 9, 2).values()
    for name in (segment_name(4), segment_name(2), snapshot_name(3)):
        damaged = mine | {name: other}
        saved, recovery = salvaged(damaged)
        assert [job.accepted.id for job in recovery.live] == ["mine-1", "mine-2", "mine-3"]
        assert f"{name}: left out, it belongs to another store" in saved.problems


def test_store_is_the_one_that_most_files_are_of_unless_it_opens() -> None:
    fs, other = SimFs(seed=1, time=NOW), SimFs(seed=2, time=NOW)
    store = store_on(fs)
    for order in range(1, 4):  # and so many segments
        store.commit([accepted(order)])
        store.close()
        store = store_on(fs)
    store.close()
    mine = fs.files()
    store = store_on(other)
    store.commit([accepted(order, id=f"other-{order}") for order in range(1, 30)])
    for _ in range(30):
        store.commit([Started(1)])
    store.compact()
    store.close()
    theirs = other.files()
    assert max(theirs) > max(mine)
    for name, data in theirs.items():
        assert ids(mine | {name: data}) == ["job-1", "job-2", "job-3"]
    assert ids(mine | theirs)[0] == "other-1"
    assert summarize(salvaged(mine | theirs)[1]) == recovered(mine | theirs) == recovered(theirs)


def test_file_under_a_wrong_name_is_taken_for_what_its_header_says() -> None:
    disk = lives(True, True)
    first, middle, last = sorted(disk)
    moved = {first: disk[first], last: disk[middle], segment_name(999): disk[last]}
    saved, recovery = salvaged(moved)
    assert summarize(recovery) == recovered(disk)
    assert saved.lost == ()
    assert [problem.split(":")[0] for problem in saved.problems] == [last, segment_name(999)]


def test_copy_of_a_file_under_a_wrong_name_is_left_out() -> None:
    disk = lives(True, True)
    first, middle, _ = sorted(disk)
    stale = disk[middle][:-20]
    for name in (segment_name(999), snapshot_name(3), middle + ".bak"):
        saved, recovery = salvaged(disk | {name: stale})
        assert summarize(recovery) == recovered(disk)
        assert any(problem.startswith(f"{name}: left out") for problem in saved.problems)
    assert first in disk


# --- a later version's -----------------------------------------------------------------


def store_with(kind: int, body: bytes) -> tuple[Disk, str]:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    store.commit([accepted(1)])
    assert store._opened is not None
    store._opened.segment.append(kind, body, sync=True)
    store.commit([accepted(3)])
    store.close()
    return fs.files(), "record 3"


NEW_OPERATION = msgspec.msgpack.encode([50, "from a later version"])


def test_operation_of_a_later_version_goes_to_quarantine_and_the_rest_is_saved() -> None:
    mixed = encode_batch([accepted(2), msgspec.Raw(NEW_OPERATION)])  # type: ignore[list-item]
    disk, record = store_with(1, mixed)
    saved, recovery = salvaged(disk)
    assert [job.order for job in recovery.live] == [1, 2, 3]
    assert [item.raw for item in recovery.quarantined] == [NEW_OPERATION]
    [problem] = saved.problems
    assert record in problem
    assert "a kind (50)" in problem


def test_record_of_a_later_version_goes_to_quarantine_and_the_rest_is_saved() -> None:
    disk, record = store_with(99, b"\xa7whatever")
    saved, recovery = salvaged(disk)
    assert [job.order for job in recovery.live] == [1, 3]
    assert [item.raw for item in recovery.quarantined] == [b"\xa7whatever"]
    [problem] = saved.problems
    assert record in problem
    assert "a kind (99)" in problem


def test_entry_of_a_later_version_goes_to_quarantine_and_the_rest_is_saved() -> None:
    entry = msgspec.msgpack.encode([100, "from a later version"])
    body = encode_batch([LiveJob(accepted(1)), msgspec.Raw(entry)])  # type: ignore[list-item]
    disk = jobs_of("mine", 2, 1)
    mine = unpack_header(disk[segment_name(1)])
    header = attrs.evolve(mine, kind=FileKind.SNAPSHOT, first=4, founded=0)
    snapshot = header.pack()
    snapshot += pack_record(1, 0, 5, body, seed=header.seed)
    snapshot += pack_record(2, 0, 6, msgspec.msgpack.encode([2, 7]), seed=header.seed)
    saved, recovery = salvaged(disk | {snapshot_name(4): snapshot})
    assert [job.accepted.id for job in recovery.live] == ["job-1"]
    assert [item.raw for item in recovery.quarantined] == [entry]
    assert recovery.next_order == 7
    assert any("a kind (100)" in problem for problem in saved.problems)


def test_file_of_a_later_version_is_a_problem() -> None:
    disk = lives(True, True)
    name = sorted(disk)[1]
    header = attrs.evolve(unpack_header(disk[name]), major=2).pack()
    saved, recovery = salvaged(disk | {name: header + disk[name][HEADER_BYTES:]})
    assert [job.order for job in recovery.live] == [1, 2]
    [problem] = saved.problems
    assert problem.startswith(f"{name}: format 2.0")
    assert len(saved.lost) == 1


# --- files that cannot be read ---------------------------------------------------------


def salvage_with_bad_spot(disk: Disk, name: str, bad: range) -> tuple[Salvage, Recovery]:
    """Salvage from a disk that gives some bytes of one file no more."""
    read = _SimFile.read

    def failing(file: _SimFile, offset: int, count: int) -> bytes:
        if file._name == name and offset < bad.stop and bad.start < offset + count:
            raise OSError(errno.EIO, "the disk is bad")
        return read(file, offset, count)

    target = SimFs(time=NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_SimFile, "read", failing)
        saved = salvage("sim", "out", files=SimFsPair(disk, target))
    return saved, open_store(target).recover()


def test_what_is_around_a_bad_spot_of_the_disk_is_saved() -> None:
    fs = SimFs(time=NOW)
    store = store_on(fs)
    for order in range(1, 200):
        store.commit([accepted(order, payload=bytes(100))])
    store.close()
    name = segment_name(1)
    records = [each for each in read_records("sim", files=fs) if each["file"] == name]
    saved, recovery = salvage_with_bad_spot(fs.files(), name, range(9000, 9001))
    [(first, last)] = saved.lost
    [offset] = [each["offset"] for each in records if each.get("number") == first]
    assert len(recovery.live) == 199 - (last - first + 1)
    assert last - first < 4096 // 100
    assert saved.problems == (
        f"{name}: not all of it can be read: the disk is bad",
        f"{name}: record {first} is unreadable, at byte {offset}",
    )


def test_file_that_cannot_be_read_at_all_is_a_problem() -> None:
    disk = lives(True, True)
    name = sorted(disk)[1]
    saved, recovery = salvage_with_bad_spot(disk, name, range(10**6))
    assert len(recovery.live) == 2
    assert saved.problems == (f"{name}: it cannot be read: the disk is bad",)
    assert len(saved.lost) == 1


def test_directory_in_place_of_a_file_is_a_problem(tmp_path: Path) -> None:
    source, out = tmp_path / "jobs", tmp_path / "saved"
    disk = lives(True, True)
    source.mkdir()
    for name, data in disk.items():
        (source / name).write_bytes(data)
    (source / segment_name(999)).mkdir()
    saved = salvage(str(source), str(out))
    assert any(
        problem.startswith(f"{segment_name(999)}: it cannot be read: ")
        for problem in saved.problems
    )
    assert saved.live == 2


def test_file_that_vanishes_meanwhile_means_that_the_store_is_in_use() -> None:
    disk = lives(True, True)

    def vanish(kind: str, name: str) -> OSError | None:
        return FileNotFoundError(errno.ENOENT, "gone") if name in disk else None

    source, target = SimFsPair(disk, SimFs(time=NOW)), SimFs(time=NOW)
    source.fail = vanish
    with pytest.raises(JobStoreError, match="gone"):
        salvage("sim", "out", files=source)
    assert not target.files()


# --- which records count ---------------------------------------------------------------

HEADER = Header(kind=FileKind.SEGMENT, store_id=bytes(16), first=5, founded=5, salt=bytes(8))
BAD = b"?" * 40


def segment(*records: tuple[int, int] | bytes) -> Remains:
    """Return a segment of records, each given as its number and what it knows to be synced."""
    data = HEADER.pack()
    for record in records:
        if isinstance(record, bytes):
            data += record
        else:
            data += pack_record(record[0], record[1], 1, b"\x90", seed=HEADER.seed)
    return Remains(segment_name(5), FileKind.SEGMENT, 5, data, HEADER)


@pytest.mark.parametrize(
    ("what", "follower", "numbers", "state"),
    [
        # Sound to the end.
        ([(5, 4), (6, 5), (7, 5)], None, [5, 6, 7], TailState.END),
        ([(5, 4), (6, 5), bytes(99)], None, [5, 6], TailState.END),
        # Torn: nothing says that the bad one was synced, so what is behind means nothing.
        ([(5, 4), (6, 5), BAD], None, [5, 6], TailState.TORN),
        ([(5, 4), (6, 5), BAD, (8, 6), (9, 6)], None, [5, 6], TailState.TORN),
        ([(5, 4), (6, 5), BAD, (8, 6), (9, 6)], 7, [5, 6], TailState.TORN),
        ([(5, 4), (6, 5), BAD, (8, 6), (9, 6)], 99, [5, 6], TailState.TORN),
        # Rotten: something does, and what is behind counts.
        ([(5, 4), BAD, (7, 6), (8, 7)], None, [5, 7, 8], TailState.END),
        ([(5, 4), BAD, (7, 5), (8, 6)], None, [5, 7, 8], TailState.END),
        ([BAD, (6, 4)], None, [6], TailState.END),
        ([BAD], None, [], TailState.ROTTEN),
        # Rotten, and then torn.
        ([(5, 4), BAD, (7, 6), BAD, (9, 7)], None, [5, 7], TailState.TORN),
        # What the next segment began with counts here as far as it has no gap.
        ([(5, 4), (6, 5), (7, 5), (8, 5)], 7, [5, 6, 7, 8], TailState.END),
        ([(5, 4), BAD, (7, 6), (8, 6)], 7, [5, 7, 8], TailState.END),
        ([(5, 4), BAD, (8, 6)], 7, [5], TailState.ROTTEN),
        # Out of place.
        ([(5, 4), (7, 6), (6, 5), (8, 7)], None, [5, 6, 7, 8], TailState.END),
        ([(5, 4), (6, 5), (6, 5), (7, 6), (8, 7)], None, [5, 6, 7, 8], TailState.END),
        ([(5, 4), (6, 5), (6, 5), (7, 5)], None, [5, 6], TailState.TORN),
    ],
)
def test_records_count_up_to_where_a_crash_tore_the_segment(
    what: list[tuple[int, int] | bytes],
    follower: int | None,
    numbers: list[int],
    state: TailState,
) -> None:
    counted = records_that_count(segment(*what), follower)
    assert sorted(counted.records) == numbers
    assert counted.tail.state is state


def test_damage_that_a_copy_makes_good_is_still_told() -> None:
    counted = records_that_count(segment((5, 4), BAD, (7, 6), BAD, (9, 8)), None)
    assert [(each.reason, each.offset) for each in counted.damage] == [
        ("record 6 is unreadable", 95),
        ("record 8 is unreadable", 166),
    ]
    counted = records_that_count(segment((5, 4), (6, 5)), follower=9)
    assert [each.reason for each in counted.damage] == ["record 7 is unreadable"]
