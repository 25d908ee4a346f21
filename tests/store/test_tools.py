"""`python -m csjd store ...`, and the functions behind it."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from csjd import stores
from csjd._model.errors import JobStoreCorruptError, JobStoreError, JobStoreLockedError
from csjd._store.file_store import FileJobStore
from csjd.cli import main
from csjd.testing.simfs import SimFs
from csjd.testing.stores import Summary, accepted, summarize
from tests.store.battery import NOW, Disk, Fault, make_disk, open_store, without_crashes
from tests.store.conftest import Report


def write_disk(path: Path, disk: Disk) -> Path:
    path.mkdir(mode=0o700)
    for name, data in disk.items():
        (path / name).write_bytes(data)
    return path


def damage(disk: Disk, name: str, at: int) -> Disk:
    data = bytearray(disk[name])
    data[at] ^= 0x10
    return disk | {name: bytes(data)}


@pytest.fixture(scope="module")
def sealed() -> tuple[Disk, list[Summary]]:
    disk, summaries = make_disk(11, close=True)
    return disk, [without_crashes(summary) for summary in summaries]


def test_verify_tells_clean_torn_and_corrupt(
    tmp_path: Path, sealed: tuple[Disk, list[Summary]], capsys: pytest.CaptureFixture[str]
) -> None:
    disk, _ = sealed
    last = max(disk)
    torn = disk | {last: disk[last][:-3]}
    for name, files, status in (
        ("clean", disk, 0),
        ("torn", torn, 1),
        ("corrupt", damage(disk, last, 90), 2),
    ):
        path = write_disk(tmp_path / name, files)
        assert main(["store", "verify", str(path)]) == status
        assert name in capsys.readouterr().out
        assert main(["store", "verify", "--json", str(path)]) == status
        verdict = json.loads(capsys.readouterr().out)
        assert verdict["health"] == name
        assert {file.name: file.read_bytes() for file in path.iterdir()} == files  # untouched
    assert main(["store", "verify", str(tmp_path / "nowhere")]) == 3
    assert "cannot be opened" in capsys.readouterr().err


def test_verify_reports_every_flipped_bit_of_a_sealed_store(
    sealed: tuple[Disk, list[Summary]], report: Report
) -> None:
    disk, _ = sealed
    flips = 0
    for name, data in disk.items():
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << at % 8
            verdict = stores.verify("sim", files=SimFs(disk | {name: bytes(flipped)}, time=NOW))
            assert verdict.health is not stores.Health.CLEAN, f"{name} byte {at}"
            flips += 1
    report("T4 flipped bits reported by verify", flips, seed=11)


def test_export_and_import_keep_everything(
    tmp_path: Path,
    sealed: tuple[Disk, list[Summary]],
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, summaries = sealed
    path, copy = write_disk(tmp_path / "one", disk), tmp_path / "two"
    assert main(["store", "export", str(path)]) == 0
    lines = capfdbinary.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main(["store", "import", str(copy)]) == 0
    store = FileJobStore(copy)
    recovery = store.recover()
    store.close()
    expected = list(summaries[-1])
    expected[1] = ()  # the duplicate windows of a disk made in 2023 have ended
    assert list(without_crashes(summarize(recovery))) == expected
    assert recovery.clean
    with pytest.raises(JobStoreError, match="already"):
        stores.import_lines(lines.splitlines(), str(copy))


def test_half_an_export_is_refused(sealed: tuple[Disk, list[Summary]]) -> None:
    disk, _ = sealed
    lines = list(stores.export_lines("sim", files=SimFs(disk, time=NOW)))
    target = SimFs(time=NOW)
    for broken in (lines[:-1], lines[1:], [*lines[:3], b"{}", *lines[3:]], [b"[1]"]):
        with pytest.raises(JobStoreError, match="line"):
            stores.import_lines(broken, "sim", files=target)
    assert not any(name.startswith("wal") for name in target.files())


def refusal(disk: Disk) -> str | None:
    """Return why a store is not opened, if it is refused as damaged."""
    try:
        open_store(SimFs(disk, time=NOW)).recover()
    except JobStoreCorruptError as error:
        return error.reason
    return None


def check_half_made(state: Disk, lines: list[bytes], expected: Summary) -> None:
    """Hold that what is left of an import opens only if it is whole, and can be begun again."""
    verdict = refusal(state)
    if verdict is not None:
        assert "begin it again" in verdict
    elif any(re.fullmatch(r"(wal|snap)-\d+", name) for name in state):
        found = open_store(SimFs(state, time=NOW)).recover()
        assert without_crashes(summarize(found)) == expected
        return  # a store like any other
    again = SimFs(state, time=NOW)
    stores.import_lines(lines, "sim", files=again)
    assert without_crashes(summarize(open_store(again).recover())) == expected


def test_import_that_a_crash_cut_short_is_never_half_a_store(
    sealed: tuple[Disk, list[Summary]], report: Report
) -> None:
    disk, summaries = sealed
    lines = list(stores.export_lines("sim", files=SimFs(disk, time=NOW)))
    seen: list[Disk] = []
    target = SimFs(time=NOW)

    def look(kind: str, name: str) -> None:
        seen.extend(target.crash_states(30, target._random))

    target.before = look
    stores.import_lines(lines, "sim", files=target)
    for state in seen:
        check_half_made(state, lines, summaries[-1])
    report("T6 crashes of an import", len(seen))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["disk full", "disk broken"])
def test_import_that_failed_can_be_given_again(
    code: int, sealed: tuple[Disk, list[Summary]], report: Report
) -> None:
    disk, summaries = sealed
    lines = list(stores.export_lines("sim", files=SimFs(disk, time=NOW)))
    states = 0
    for kind in ("create", "write", "allocate", "truncate", "sync", "rename", "sync_directory"):
        nth, struck = 1, True
        while struck:
            fault = Fault(kind, nth, code, lasting=False)
            target = SimFs(time=NOW, fail=fault)
            try:
                stores.import_lines(lines, "sim", files=target)
            except JobStoreError:
                target.fail = None
                target.kill()
                check_half_made(target.files(), lines, summaries[-1])
                for state in target.crash_states(10, target._random):
                    check_half_made(state, lines, summaries[-1])
                stores.import_lines(lines, "sim", files=target)
                found = open_store(target).recover()
                assert without_crashes(summarize(found)) == summaries[-1]
            else:
                assert not fault.hits or (kind, code) == ("allocate", errno.ENOSPC)
            struck, nth = fault.hits > 0, nth + 1
            states += 1
    report("faults of an import", states)


def test_import_takes_no_other_stores_place(sealed: tuple[Disk, list[Summary]]) -> None:
    lines = [b'{"csjd-store":1}', b'{"next_order":1}']
    made = SimFs(time=NOW)
    stores.import_lines(lines, "sim", files=made)
    segment = max(made.files())
    unfinished = {segment: made.files()[segment]}
    stores.import_lines(lines, "sim", files=SimFs(unfinished, time=NOW))
    used = SimFs(time=NOW)
    store = open_store(used)
    store.recover()
    store.commit([accepted(1)])
    store.close()
    (log,) = used.files().values()
    for other in (
        made.files(),
        damage(unfinished, segment, 10),
        damage(unfinished, segment, 100),
        {segment: log},
        unfinished | {"wal-00000000000000000004": log},
        {"snap-00000000000000000001": b""},
    ):
        fs = SimFs(other, time=NOW)
        with pytest.raises(JobStoreError, match="holds a store already"):
            stores.import_lines(lines, "sim", files=fs)
        assert fs.files() == other


def test_inspect_shows_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = FileJobStore(tmp_path / "store")
    store.recover()
    payload = stores.encode_payload({"to": "\x1b[31mred"})
    store.commit([accepted(1, id="a\u202eb", session="s", payload=payload), stores.Halted("s")])
    assert main(["store", "inspect", "--jobs", "--records", store.path]) == 0  # while in use
    out = capsys.readouterr().out
    assert "live 1" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert main(["store", "inspect", "--jobs", "--json", store.path]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["halted_sessions"] == ["s"]
    assert lines[-1]["job"] == "a\u202eb"
    store.close()


def test_what_else_lies_in_the_directory_is_listed_and_not_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    store.commit([accepted(1)])
    store.close()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "wal-x").mkdir()
    (tmp_path / "notes").write_text("four")
    for command in ("verify", "inspect", "export"):
        assert main(["store", command, str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["store", "inspect", "--json", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {line["file"]: line for line in lines if "file" in line}
    for name in ("pipe", "link", "wal-x"):
        assert found[name] == {"file": name, "kind": "other", "problem": "it is no regular file"}
    assert found["notes"] == {"file": "notes", "kind": "other", "size": 4}


def test_inspect_says_of_a_leftover_file_that_it_cannot_be_read(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    store.compact()
    store.close()
    leftover = "wal-00000000000000000001"  # the snapshot covers it
    (tmp_path / leftover).mkdir()
    assert stores.verify(str(tmp_path)).health is stores.Health.CLEAN
    reports = {file.name: file for file in stores.inspect(str(tmp_path)).files}
    assert reports[leftover].problem == "it is no regular file"


def test_compact_keeps_what_it_found(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    store.commit([accepted(1), stores.Started(1)])
    assert store._opened is not None
    store._opened.lock.release()  # a crash
    assert main(["store", "compact", str(tmp_path)]) == 0
    store = FileJobStore(tmp_path)
    recovery = store.recover()
    store.close()
    assert [job.crashes for job in recovery.live] == [1]
    assert not recovery.clean  # its owner had not closed it, and a tool is no owner


def test_compact_makes_no_store_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    assert main(["store", "compact", "--json", str(missing)]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"] == "JobStoreError"
    assert "cannot be opened" in captured.err
    assert main(["store", "compact", str(empty)]) == 3
    assert "holds no store" in capsys.readouterr().err
    assert [*tmp_path.rglob("*")] == [empty]


def test_locked_store_is_a_status_and_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    assert main(["store", "compact", "--json", str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"] == "JobStoreLockedError"
    assert "in use by" in captured.err
    store.close()


def test_making_a_store_where_one_is_in_use_is_refused_as_locked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    with pytest.raises(JobStoreLockedError) as caught:
        stores.import_lines([b'{"csjd-store":1}', b'{"next_order":1}'], str(tmp_path))
    assert caught.value.holder.startswith("process ")
    assert main(["store", "salvage", "--json", str(tmp_path), str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"] == "JobStoreLockedError"
    assert "in use by process " in captured.err
    store.close()


def test_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "csjd", "store", "verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 3
    assert b"holds no store" in done.stderr
