"""What a command ends with: its status means what is said of it, whatever goes wrong."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import csjd
from csjd import stores
from csjd.cli import main
from csjd.testing.stores import accepted

FULL = Path("/dev/full")
EMPTY_EXPORT = b'{"csjd-store":1}\n{"next_order":1}\n'


def make_store(path: str) -> str:
    store = csjd.FileJobStore(path)
    store.recover()
    store.commit([accepted(1, id="job-ö")])
    store.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return make_store(str(tmp_path / "jobs"))


def ascii_output(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    return written


@pytest.mark.parametrize(
    "arguments", [[], ["store"], ["store", "verify"], ["store", "verify", "x", "--jsn"], ["mend"]]
)
def test_wrong_arguments_are_no_damage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 3
    assert "error: " in capsys.readouterr().err


def test_bug_is_no_torn_tail(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def buggy(path: str) -> stores.Verdict:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(stores, "verify", buggy)
    assert main(["store", "verify", path]) == 3
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ZeroDivisionError: a bug" in shown


def test_text_that_the_output_lacks_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_store(str(tmp_path / "jöbs"))
    for command in ("verify", "inspect", "compact"):
        written = ascii_output(monkeypatch)
        assert main(["store", command, path]) == 0
        if command != "inspect":
            assert rb"j\xf6bs" in written.getvalue()


def test_path_that_is_no_text_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = os.fsdecode(os.fsencode(tmp_path) + b"/\xffmissing")
    assert main(["store", "verify", "--json", missing]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["message"].startswith(rf"{tmp_path}/\udcffmissing: cannot be opened")
    path = make_store(os.fsdecode(os.fsencode(tmp_path) + b"/\xffjobs"))
    assert main(["store", "verify", path]) == 0
    assert rf"{tmp_path}/\udcffjobs: clean" in capsys.readouterr().out
    Path(path, os.fsdecode(b"\xfe")).touch()
    assert main(["store", "inspect", "--json", path]) == 0
    assert rb"\\udcfe" in capsys.readouterr().out.encode()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", ["verify", "inspect", "export", "compact"])
def test_output_that_fails_is_told(
    command: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FULL.open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["store", command, path]) == 3
    assert capsys.readouterr().err == "cannot read or write: [Errno 28] No space left on device\n"


def test_output_that_nobody_reads_any_more_is_no_error_to_tell(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert main(["store", "export", path]) == 3
    assert capsys.readouterr().err == ""


def test_closed_streams_are_told(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["store", "import", path + "2"]) == 3
    assert "standard input is closed" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdout", None)
    assert main(["store", "export", path]) == 3
    assert "standard output is closed" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr", None)
    assert main(["store", "verify", path + "3"]) == 3


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_status_is_that_of_the_process(path: str) -> None:
    """The interpreter flushes once more at its exit, and has a status of its own for failing."""
    command = [sys.executable, "-m", "csjd", "store", "verify", path]
    with FULL.open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (3, 1)
