"""
`python -m csjd store`: look into a store, check it, mend it, move it.

Exit status: 0 clean, 1 torn tail (verify alone says so), 2 corrupt, 3 anything else that
went wrong. A store in use can end in what looks like a torn tail: a record being written.
"""

import argparse
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

import csjd
from csjd import stores
from csjd.cli import _streams as streams

FAILED: Final = 3

Options = argparse.Namespace


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group `store` to a parser."""
    group = groups.add_parser("store", help="a FileJobStore's directory", description=__doc__)
    commands = group.add_subparsers(metavar="COMMAND", required=True)
    inspect = _add(commands, "inspect", _inspect, "say what is in it (takes no lock)")
    inspect.add_argument("--jobs", action="store_true", help="list every job, too")
    inspect.add_argument("--records", action="store_true", help="list every record, too")
    _add(commands, "verify", _verify, "say whether it is sound (takes no lock)")
    salvage = _add(commands, "salvage", _salvage, "save what is sound into a new store")
    salvage.add_argument("into", metavar="OUT", help="the new store; must not exist")
    _add(commands, "export", _export, "write it to standard output as JSON lines")
    _add(commands, "import", _import, "make a new store from JSON lines on standard input")
    _add(commands, "compact", _compact, "make it small")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[Options], int],
    help: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help.capitalize() + ".")
    parser.add_argument("path", metavar="PATH", help="the store's directory")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.set_defaults(run=lambda options: _guarded(run, options))
    return parser


def _guarded(run: Callable[[Options], int], options: Options) -> int:
    """Run a command; turn whatever it may end with into a line and a status."""
    try:
        status = _telling(run, options)
        streams.flush()
    except OSError as error:  # of our own input or output: a store's are typed
        streams.abandon_output()
        if not isinstance(error, BrokenPipeError):  # whoever read it has had enough
            streams.complain(f"cannot read or write: {error}")
        return FAILED
    except Exception:  # a bug, which must not look like a torn tail
        streams.complain(traceback.format_exc())
        return FAILED
    return status


def _telling(run: Callable[[Options], int], options: Options) -> int:
    """Run a command; tell of the errors it is known to end with."""
    try:
        return run(options)
    except csjd.JobStoreCorruptError as error:
        _complain(options, error)
        return stores.Health.CORRUPT
    except csjd.JobStoreError as error:
        _complain(options, error)
        return FAILED


def _complain(options: Options, error: csjd.JobStoreError) -> None:
    if options.json:
        fields = {"error": type(error).__name__, "message": str(error)}
        for field in ("file", "offset", "holder"):
            if hasattr(error, field):
                fields[field] = getattr(error, field)
        streams.say_json(fields)
    streams.complain(str(error))


# --- commands --------------------------------------------------------------------------


def _inspect(options: Options) -> int:
    found = stores.inspect(options.path)
    print_one = streams.say_json if options.json else _print_fields
    print_one(_summary(found))
    for file in found.files:
        print_one({"file": file.name} | attrs.asdict(file, filter=_without_name))
    for item in found.recovery.quarantined:
        print_one({"quarantined": item.reason, "session": item.session, "raw": item.raw.hex()})
    if options.jobs:
        for line in _jobs(found.recovery):
            print_one(line)
    if options.records:
        for record in stores.records(options.path):
            print_one(record)
    return stores.Health.CLEAN


def _verify(options: Options) -> int:
    verdict = stores.verify(options.path)
    if options.json:
        streams.say_json(attrs.asdict(verdict) | {"health": verdict.health.name.lower()})
    elif verdict.health is stores.Health.CLEAN:
        streams.say(f"{options.path}: clean")
    elif verdict.health is stores.Health.TORN:
        streams.say(f"{options.path}: torn tail: {verdict.file} from byte {verdict.offset}:")
        streams.say(f"  {verdict.reason}, none acknowledged: a crash cut them short,")
        streams.say("  and the next opening cuts them off; or the store is in use, and writing")
    else:
        streams.say(f"{options.path}: corrupt: {verdict.file} at byte {verdict.offset}:")
        streams.say(f"  {verdict.reason};")
        streams.say(f"  `python -m csjd store salvage {options.path} OUT` is next")
    return verdict.health


def _salvage(options: Options) -> int:
    saved = stores.salvage(options.path, options.into)
    if options.json:
        streams.say_json(attrs.asdict(saved))
    else:
        streams.say(f"{options.into}: {saved.saved} entries saved, {saved.live} of them live jobs")
        for problem in saved.problems:
            streams.say(f"  {problem}")
        for first, last in saved.lost:
            streams.say(f"  records {first} to {last} are lost")
    return stores.Health.CLEAN


def _export(options: Options) -> int:
    for line in stores.export_lines(options.path):
        streams.write(line)
    return stores.Health.CLEAN


def _import(options: Options) -> int:
    count = stores.import_lines(streams.stdin(), options.path)
    if options.json:
        streams.say_json({"imported": count})
    else:
        streams.say(f"{options.path}: {count} entries imported")
    return stores.Health.CLEAN


def _compact(options: Options) -> int:
    stores.require_store(options.path)  # opening it would make one
    store = stores.FileJobStore(options.path)
    store.recover()
    try:
        before = store.statistics()
        store.compact()
        after = store.statistics()
    finally:
        store.close_as_found()
    sizes = {
        "before": before.log_bytes + before.snapshot_bytes,
        "after": after.log_bytes + after.snapshot_bytes,
    }
    if options.json:
        streams.say_json(sizes)
    else:
        streams.say(f"{options.path}: {sizes['before']:,} bytes before, {sizes['after']:,} after")
    return stores.Health.CLEAN


# --- printing --------------------------------------------------------------------------


def _summary(found: stores.Inspection) -> dict[str, Any]:
    recovery = found.recovery
    return {
        "store": found.store_id,
        "live": len(recovery.live),
        "dead_letters": len(recovery.dead_letters),
        "remembered_ids": len(recovery.remembered),
        "halted_sessions": sorted(recovery.halted),
        "quarantined": len(recovery.quarantined),
        "of_a_later_version": found.foreign,
        "next_order": recovery.next_order,
        "closed_clean": recovery.clean,
        "notices": list(recovery.notices),
    }


def _jobs(recovery: stores.Recovery) -> Iterator[dict[str, Any]]:
    for job in recovery.live:
        yield {
            "job": job.accepted.id,
            "order": job.order,
            "type": job.accepted.type,
            "session": job.accepted.session,
            "priority": job.accepted.priority,
            "attempts": job.attempts,
            "crashes": job.crashes,
            "due": job.due,
            "payload": _payload(job.accepted.payload),
        }
    for letter in recovery.dead_letters:
        yield {
            "dead_letter": letter.accepted.id,
            "order": letter.order,
            "type": letter.accepted.type,
            "session": letter.accepted.session,
            "attempts": letter.attempts,
            "crashes": letter.crashes,
            "reason": letter.reason.name.lower(),
            "error": letter.error,
        }


def _payload(data: bytes) -> str:
    """Return a payload as text to look at; what controls a terminal comes out escaped."""
    try:
        return ascii(stores.decode_payload(data))[:200]
    except ValueError:
        return f"{len(data)} bytes"


def _without_name(attribute: "attrs.Attribute[Any]", value: object) -> bool:
    return attribute.name != "name" and value not in ("", 0)


def _print_fields(fields: dict[str, Any]) -> None:
    (key, value), *more = fields.items()
    rest = ", ".join(f"{name} {_plain(one)}" for name, one in more if one not in (None, [], ""))
    streams.say(f"{key} {_plain(value)}: {rest}")


def _plain(value: object) -> str:
    """Return a value on one line; ids may hold anything but control characters."""
    return value if isinstance(value, str) and value.isprintable() else ascii(value)
