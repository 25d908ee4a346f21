"""The lines of an export: what is taken comes back, and what is not leaves nothing behind."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from csjd import stores
from csjd._model.errors import JobStoreError
from csjd._store.file_store import FileJobStore
from csjd.testing.simfs import SimFs
from csjd.testing.stores import accepted
from tests.store.battery import NOW

Line = dict[str, Any]

HEAD: Line = {"csjd-store": 1}
TIMEOUTS = (0, -1, -0.5, "Infinity")


def export() -> list[Line]:
    """Return the lines of a store with some of everything, a Foreign left out."""
    fs = SimFs(time=NOW)
    store = FileJobStore("sim", files=fs)
    store.recover()
    store.commit([accepted(order, session="s") for order in range(1, 5)])
    store.commit([stores.Ended(1, NOW + 60), stores.Halted("s"), stores.Ended(77)])
    reason = stores.DeathReason.FAILED
    store.commit([stores.DeadLettered(2, 1, reason, "ValueError: no", NOW)])
    store.close()
    return [json.loads(line) for line in stores.export_lines("sim", files=fs)]


def take(lines: Sequence[Line | bytes], fs: SimFs | None = None) -> int:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return stores.import_lines(encoded, "sim", files=fs or SimFs(time=NOW))


def changed(line: Line, *path: str, to: Any) -> Line:
    """Return *line* with another value at *path*."""
    line = copy.deepcopy(line)
    inner = line
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return line


LINES = export()
LIVE, OTHER = (line for line in LINES if "live" in line)
END = LINES[-1]
DEAD = changed(next(line for line in LINES if "dead" in line), "dead", "accepted", "order", to=3)


def job(field: str, value: object) -> Line:
    return changed(LIVE, "live", "accepted", field, to=value)


def foreign(raw: bytes) -> Line:
    return {"foreign": msgspec.json.decode(msgspec.json.encode(raw))}


def test_some_of_everything_comes_back() -> None:
    later = foreign(msgspec.msgpack.encode([200, "of a later version"]))
    given = [*LINES[:-1], later, END]
    kinds = {next(iter(line)) for line in given}
    assert kinds == {*HEAD, *END, "live", "dead", "remembered", "halted", "quarantined", "foreign"}
    fs = SimFs(time=NOW)
    assert take(given, fs) == len(given) - 2
    assert [json.loads(line) for line in stores.export_lines("sim", files=fs)] == given


def test_lines_may_be_apart_from_each_other() -> None:
    assert take([b"", HEAD, b"  ", LIVE, OTHER, b"\n", END, b""]) == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        *((job("order", value), "order must be at least 1") for value in (0, -1, 1 << 63, 1 << 70)),
        *((job("priority", value), "priority must fit") for value in (1 << 64, -(1 << 70))),
        *((job("max_attempts", value), "max_attempts must") for value in (0, -1, 1 << 64)),
        *((job("timeout", value), "timeout must|float") for value in TIMEOUTS),
        *((job("id", value), "id must") for value in ("", "a\x00b", "x" * 513)),
        *((job("type", value), "type must") for value in ("", "a\nb", "\x85")),
        *((job("session", value), "session must") for value in ("", "\x7f")),
        (job("created_at", "2024-01-01T00:00:00"), "created_at must be a datetime with a time"),
        (job("created_at", "0001-01-01T00:00:00+12:00"), "created_at must be a moment"),
        (job("run_at", "9999-12-31T23:59:59-12:00"), "run_at must be a moment"),
        (job("payload", "!"), "base64"),
        *((changed(LIVE, "live", "attempts", to=n), "attempts must") for n in (-1, 1 << 64)),
        *((changed(LIVE, "live", "crashes", to=n), "crashes must") for n in (-1, 1 << 64)),
        (changed(LIVE, "live", "accepted", to=[1]), "fields of Accepted must have their names"),
        (changed(LIVE, "live", "more", to=1), "are not those of LiveJob"),
        ({"live": None}, "fields of LiveJob must have their names"),
        ({"remembered": {"id": "", "until": NOW}}, "id must not be empty"),
        ({"halted": {"session": "\x00"}}, "session must hold no control"),
        (foreign(b"\x00\x00\x00"), "no item of a later version"),
        (foreign(b""), "no item of a later version"),
        (foreign(msgspec.msgpack.encode([200]) * 2), "no item of a later version"),
        (foreign(msgspec.msgpack.encode(200)), "no item of a later version"),
        (foreign(msgspec.msgpack.encode([68, "s"])), "no item of a later version"),
        (foreign(msgspec.msgpack.encode([100])), "kind .100. that this version"),
        ({"unheard": {}}, "'unheard' is nothing that this version knows"),
        (HEAD, "the first line, and no other"),
        ({**LIVE, **END}, "no line of an export"),
        ({}, "no line of an export"),
        (b"[" * 100_000, "recursion"),
        (b'{"live":' * 100_000, "recursion"),
        (b'{"halted":{"session":"\xff"}}', "decode"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"remembered":{"id":"x","until":NaN}}', "malformed"),
        (b'{"remembered":{"id":"x","until":1e999}}', "range"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_line_that_no_store_would_hold_is_refused(line: Line | bytes, problem: str) -> None:
    fs = SimFs(time=NOW)
    with pytest.raises(JobStoreError, match=f"line 2 is unusable: .*({problem})"):
        take([HEAD, line, END], fs)
    assert fs.files() == {}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([HEAD, LIVE, job("id", "another"), END], "line 3 .*another line has order 3, too"),
        ([HEAD, LIVE, DEAD, END], "line 3 .*another line has order 3, too"),
        ([HEAD, LIVE, job("order", 9), END], "line 3 .*another live job has the id 'job-3', too"),
        ([HEAD, *[{"remembered": {"id": "a", "until": NOW}}] * 2, END], "line 3 .*already"),
        ([HEAD, LIVE, {"next_order": 3}], "line 3 .*next_order must be at least 4"),
        ([HEAD, {"next_order": 0}], "line 2 .*next_order must be at least 1"),
        ([HEAD, {"next_order": 1 << 63}], "line 2 .*next_order must .* fit in 63 bits"),
        ([HEAD, {"next_order": True}], "line 2 .*int"),
        ([HEAD, END, LIVE], "line 3 .*comes after the last one"),
        ([HEAD, END, END], "line 3 .*comes after the last one"),
        ([HEAD, END, HEAD, END], "line 3 .*comes after the last one"),
        ([LIVE, END], "line 1 .*the first line"),
        ([END], "line 1 .*the first line"),
        ([{"csjd-store": 2}, END], "line 1 .*export format 2 is not known"),
        ([{"csjd-store": True}, END], "line 1 .*export format True is not known"),
        ([HEAD, LIVE], "the last line is missing"),
        ([], "the last line is missing"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_lines_that_contradict_each_other_are_refused(
    lines: list[Line | bytes], problem: str
) -> None:
    fs = SimFs(time=NOW)
    with pytest.raises(JobStoreError, match=problem):
        take(lines, fs)
    assert fs.files() == {}


def test_fields_that_an_earlier_version_did_not_have_have_their_defaults() -> None:
    earlier = copy.deepcopy(LINES)
    for line in earlier:
        for thing in (line.get("live"), line.get("dead")):
            if thing is not None:
                thing.pop("delay", None)
                del thing["accepted"]["delay"], thing["accepted"]["metadata"]
    ours, theirs = SimFs(time=NOW), SimFs(time=NOW)
    assert take(LINES, ours) == take(earlier, theirs)
    assert list(stores.export_lines("sim", files=theirs)) == list(
        stores.export_lines("sim", files=ours)
    )


def test_import_goes_without_room_ahead_where_there_is_none() -> None:
    disk = SimFs(time=NOW, room=8_000, growth=1 << 20)
    taken = take(LINES, disk)
    assert taken == len(LINES) - 2
    assert [json.loads(line) for line in stores.export_lines("sim", files=disk)] == LINES
