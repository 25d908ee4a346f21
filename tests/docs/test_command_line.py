"""The page on the command line says what there is, and that is what there is."""

import argparse
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from csjd import stores
from csjd.cli import main, make_parser
from csjd.cli.store import FAILED
from csjd.testing.stores import accepted
from tests.docs.test_blocks import ROOT

PAGE = (ROOT / "docs/reference/command-line.md").read_text()
LOCKS = dict(re.findall(r"^\| `(\w+)` \| .+ \| (.+) \|$", PAGE, re.MULTILINE))


def choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return a parser's commands."""
    actions = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(actions[0].choices)


COMMANDS = choices(choices(make_parser())["store"])


def section(command: str) -> str:
    match = re.search(rf"^## {command}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None, f"the page has no section on {command}"
    return match[1]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A store in use, with some of everything that lines are printed of."""
    store = stores.FileJobStore(tmp_path / "jobs")
    store.recover()
    store.commit([accepted(1, session="s"), accepted(2), stores.Halted("s"), stores.Ended(9)])
    failed = stores.DeathReason.FAILED
    store.commit([stores.DeadLettered(2, 1, failed, "ValueError: no", 1.0)])
    yield store.path
    store.close()


def test_every_command_is_on_the_page_and_no_other() -> None:
    assert set(LOCKS) == set(COMMANDS)
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert headings == ["Exit status", *COMMANDS]


def test_every_option_is_on_the_page_and_no_other() -> None:
    there = set(re.findall(r"`(--\w+)`", PAGE))
    for command, parser in COMMANDS.items():
        options = {name for each in parser._actions for name in each.option_strings}
        own = options - {"-h", "--help", "--json"}
        assert own == set(re.findall(r"`(--\w+)`", section(command))) - {"--json"}
        there -= own
    assert there == {"--json", "--help"}


def test_statuses_are_those_of_the_code() -> None:
    statuses = re.findall(r"^\| (\d) \| (\w+)", PAGE, re.MULTILINE)
    assert statuses == [
        *((str(health.value), health.name.lower()) for health in stores.Health),
        (str(FAILED), "anything"),
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_takes_the_lock_is_refused_in_use(
    command: str,
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = io.BytesIO(b'{"csjd-store":1}\n{"next_order":1}\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines))
    source = [str(tmp_path / "other")] if command == "salvage" else []
    if source:
        store = stores.FileJobStore(source[0])
        store.recover()
        store.close()
    status = main(["store", command, "--json", *source, path])
    shown = capsys.readouterr().out
    if LOCKS[command] == "none":
        assert status == 0
    else:
        assert status == 3
        assert json.loads(shown)["error"] == "JobStoreLockedError"


@pytest.mark.parametrize(
    "arguments",
    [["inspect", "--jobs", "--records"], ["verify"], ["export"]],
    ids=lambda arguments: str(arguments[0]),
)
def test_fields_of_lines_are_on_the_page(
    arguments: list[str], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", *arguments, "--json", path]) == 0
    for line in capsys.readouterr().out.splitlines():
        for key in json.loads(line):
            assert re.search(f'`{key}`|`{{"{key}":', section(arguments[0])), key


def test_fields_of_what_makes_stores_are_on_the_page(
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = io.BytesIO(b"\n".join(stores.export_lines(path)))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines))
    made = str(tmp_path / "made")
    for command in (["import", made], ["compact", made], ["salvage", made, made + "2"]):
        assert main(["store", *command, "--json"]) == 0
        for key in json.loads(capsys.readouterr().out):
            assert f"`{key}`" in section(command[0])
    assert main(["store", "verify", "--json", made + "3"]) == 3
    for key in json.loads(capsys.readouterr().out):
        assert f"`{key}`" in section("Exit status")
