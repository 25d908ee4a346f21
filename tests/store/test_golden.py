"""Stores that released versions wrote must open for ever."""

import sys
from pathlib import Path

import pytest

from csjd import stores
from csjd._store.framing import MAJOR, MINOR
from csjd.testing.simfs import SimFs
from csjd.testing.stores import accepted
from tests.store.battery import NOW, Disk, make_disk, open_store

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def read_disk(path: Path) -> Disk:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def exported(disk: Disk) -> bytes:
    return b"".join(line + b"\n" for line in stores.export_lines("g", files=SimFs(disk, time=NOW)))


@pytest.mark.parametrize("name", NAMES)
def test_golden_store_opens_and_goes_on(name: str) -> None:
    disk = read_disk(GOLDEN / name)
    assert exported(disk) == (GOLDEN / f"{name}.jsonl").read_bytes()
    store = open_store(SimFs(disk, time=NOW))
    recovery = store.recover()
    assert recovery.clean == name.endswith("closed")
    assert not recovery.quarantined
    store.commit([accepted(recovery.next_order)])
    store.compact()
    store.close()


def test_this_format_has_its_golden_stores() -> None:
    assert {f"format-{MAJOR}.{MINOR}-closed", f"format-{MAJOR}.{MINOR}-crashed"} <= set(NAMES)


def make(name: str) -> None:
    disk, _ = make_disk(2024, batches=40, close=name.endswith("closed"))
    if name.endswith("crashed"):
        last = max(disk)
        disk[last] = disk[last].rstrip(b"\0") + b"\xc5\x1dJ\xb0torn" + bytes(40)
    path = GOLDEN / name
    path.mkdir()
    for file, data in disk.items():
        (path / file).write_bytes(data)
    (GOLDEN / f"{name}.jsonl").write_bytes(exported(disk))


if __name__ == "__main__":
    make(sys.argv[1])
