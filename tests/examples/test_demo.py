"""The demo: what it finds is right, what it cannot parse it says, what it logs is JSON."""

import builtins
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import csjd
from examples.demo.__main__ import main
from examples.demo.index import PackageIndex, merge, top
from examples.demo.indexing import build_index, forget
from examples.demo.library import package_of, source_files, standard_library
from examples.demo.progress import Progress
from examples.demo.results import Results
from examples.demo.scan import scan_file
from examples.demo.screen import PlainScreen, Table, open_screen

ROOT = Path(__file__).parents[2]
FILES = {
    "alpha/__init__.py": '"""Reads turtles."""\n',
    "alpha/inner/deep.py": "class Turtle:\n    def walk(self, legs):\n        legs.move(legs)\n",
    "beta.py": "def walk(): ...\nasync def run(): ...",
    "broken.py": "print 'hello'\n",
    "empty.py": "",
    "null.py": "x = 1\0",
    "site-packages/foreign.py": "def foreign(): ...\n",
    "notes.txt": "no Python\n",
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "library"


def run_demo(library: Path, log: Path, *more: str) -> int:
    store = library.with_name("kept")
    return main(["--root", str(library), "--log", str(log), "--store", str(store), *more])


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_shows_the_index_the_metrics_and_the_dead_letters(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "new" / "demo.jsonl"
    assert run_demo(library, log, "--find", "walk") == 0
    shown = capsys.readouterr().out
    assert "6 of 6 files, 2 failed" in shown
    assert "throughput" in shown
    assert "walk: defined in 2 files, otherwise mentioned 0 times" in shown
    assert "  alpha/inner/deep.py\n  beta.py\n" in shown
    letters = shown[shown.index("Dead letters") : shown.index("The index")]
    assert "broken.py" in letters
    assert "null.py" in letters
    assert "beta.py" not in letters
    assert str(log) in shown


def test_its_log_tells_the_life_of_every_job(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "demo.jsonl"
    run_demo(library, log)
    lines = read_log(log)
    wanted = {"component", "job_id", "job_type", "payload_size", "session"}
    mine = [line for line in lines if line.get("job_id") == "alpha/inner/deep.py"]
    assert [line["event"] for line in mine] == ["JobAccepted", "AttemptStarted", "JobEnded"]
    assert all(wanted <= line.keys() for line in mine)
    assert mine[0]["session"] == "alpha"
    assert mine[0]["payload_size"] == len("alpha/inner/deep.py")
    assert mine[2]["outcome"] == "succeeded"
    outcomes = Counter(line["outcome"] for line in lines if line.get("event") == "JobEnded")
    assert outcomes == {"succeeded": 4, "failed": 2}


def test_bad_options_are_answered_with_the_usage(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--workers", "0"], ["--limit", "0"], ["--root", str(tmp_path / "nowhere")]):
        with pytest.raises(SystemExit):
            run_demo(library, tmp_path / "log", *options)
        assert "usage: python -m examples.demo" in capsys.readouterr().err


def test_what_was_kept_is_removed_at_the_end_and_nothing_else(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "kept" / "jobs" / "letter.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("dear Ada")
    assert run_demo(library, tmp_path / "log") == 0
    assert [each for each in (tmp_path / "kept").rglob("*") if each.is_file()] == [theirs]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["--root", str(library), "--log", str(tmp_path / "log")]) == 0
    assert list((tmp_path / "cache" / "csjd-demo").iterdir()) == []


async def index(library: Path, files: Sequence[str]) -> Mapping[str, object]:
    keep = library.with_name("kept")
    keep.mkdir(exist_ok=True)
    run = await build_index(library, files, config=csjd.Config(workers=3, lanes=2), keep=keep)
    forget(keep)
    assert run.metrics.accepted == run.metrics.succeeded + run.metrics.failed
    return {
        "definitions": run.index.definitions,
        "names": run.index.names,
        "words": run.index.words,
        "packages": run.index.packages,
        "defined_in": run.index.defined_in,
        "failed": sorted(letter.job.id for letter in run.dead_letters),
    }


async def test_the_index_is_the_same_however_the_work_is_shared(library: Path) -> None:
    files = source_files(library)
    found = await index(library, files)
    assert found == await index(library, files[::-1])
    assert found == {
        "definitions": {"walk": 2, "Turtle": 1, "run": 1},
        "names": {"legs": 3, "self": 1, "move": 1},
        "words": {"reads": 1, "turtles": 1},
        "packages": {"alpha": 4, "beta": 2, "empty": 0},
        "defined_in": {
            "Turtle": ("alpha/inner/deep.py",),
            "walk": ("alpha/inner/deep.py", "beta.py"),
            "run": ("beta.py",),
        },
        "failed": ["broken.py", "null.py"],
    }


def test_a_scan_added_twice_counts_once(library: Path) -> None:
    package = PackageIndex()
    for _ in range(2):
        package.add(scan_file(library, "beta.py"))
    assert merge([("beta", package)]).definitions == {"walk": 1, "run": 1}


def test_ties_are_ranked_by_name() -> None:
    assert top(Counter(b=2, c=1, a=2), 2) == [("a", 2), ("b", 2)]


def test_the_running_interpreters_library_is_found() -> None:
    files = source_files(standard_library())
    assert "asyncio/__init__.py" in files
    assert not any("site-packages" in path for path in files)
    assert files == sorted(files)
    assert package_of("asyncio/base_events.py") == "asyncio"
    assert package_of("ast.py") == "ast"


async def test_plain_progress_is_a_line_for_each_tenth(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(PlainScreen().follow, progress)
        for _ in range(20):
            await trio.sleep(1)
            progress.done += 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].split() == ["20", "of", "20", "files,", "0", "failed"]


def test_a_plain_table_aligns_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    PlainScreen().show(
        Table(title="T", columns=("name", ">count"), rows=[("a", "1"), ("bcdef", "22")], note="n")
    )
    assert capsys.readouterr().out.splitlines() == [
        "",
        "T",
        "  name   count",
        "  -----  -----",
        "  a          1",
        "  bcdef     22",
        "  n",
    ]


def test_without_rich_the_screen_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_rich(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "rich":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "examples.demo.rich_screen", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_rich)
    assert isinstance(open_screen(), PlainScreen)


async def test_the_bar_and_the_tables_are_drawn_on_a_terminal(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    for name in ("NO_COLOR", "TERM", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    screen = open_screen()
    assert type(screen).__name__ == "RichScreen"
    progress = Progress(2, latest="some/[file].py")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.follow, progress)
        await trio.sleep(1)
        progress.done = 2
    screen.show(Table(title="T", columns=("name", ">count"), rows=[("[b]x", "1")]))
    shown = capsys.readouterr().out
    assert "2/2" in shown
    assert "[b]x" in shown  # a name is shown as it is, never read as markup


def test_killed_half_way_it_goes_on_where_it_was_and_says_so(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for number in range(400):
        (library / f"m{number:03}.py").write_text(f"def f{number}(): ...\n")
    (library / "broken.py").write_text("print 'hello'\n")
    log, store = tmp_path / "log", tmp_path / "kept"
    command = [sys.executable, "-m", "examples.demo", "--root", str(library), "--log", str(log)]
    command += ["--store", str(store), "--find", "f399"]
    results = store / "csjd-demo-results.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        while not (results.exists() and results.read_bytes().count(b"\n") >= 20):
            assert process.poll() is None, "it was too fast to be killed half-way"
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    done = results.read_bytes().count(b"\n")
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "An earlier run was ended half-way" in again
    assert "400 files, 400 lines, 400 distinct definitions" in again
    assert "f399: defined in 1 file" in again
    assert "broken.py" in again
    assert 20 <= done < 400
    assert list(store.iterdir()) == []


def test_a_result_that_a_crash_tore_is_dropped_and_a_second_one_replaces_the_first(
    library: Path, tmp_path: Path
) -> None:
    path = tmp_path / "results"
    scan = scan_file(library, "beta.py")
    results = Results(path)
    results.add(scan)
    results.close()
    path.write_bytes(path.read_bytes() + b'{"path": "be')
    results = Results(path)
    assert results.scans() == [scan]
    results.add(scan)
    assert results.scans() == [scan, scan]
    results.close()
