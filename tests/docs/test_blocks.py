"""
Every Python block of the docs runs.

The blocks of a page are one script, read from top to bottom. A ```text block that follows
`<!-- output -->` shows lines the script prints, in this order. Scripts run on virtual
time, so a page may wait for minutes; a page whose handlers run in threads, which a mock
clock cannot wait for, says `<!-- real time -->` and waits for moments only.
"""

import functools
import re
import sys
import types
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md"]
    + [
        page
        for page in (ROOT / "docs").rglob("*.md")
        if not {"_build", "_generated"} & set(page.parts)
    ]
)
_FENCE = re.compile(
    r"^(?P<output><!-- output -->\n)?```(?P<kind>\w+)[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@attrs.frozen
class Page:
    """What a page says that can be run, and what it says comes of it."""

    script: str
    """Its blocks at the lines where the page has them, so that tracebacks point there."""
    outputs: tuple[str, ...]
    real_time: bool


def read_page(text: str) -> Page:
    lines = [""] * (text.count("\n") + 1)
    outputs = []
    for fence in _FENCE.finditer(text):
        if fence["kind"] == "python":
            first = text.count("\n", 0, fence.start("body"))
            body = fence["body"].splitlines()
            lines[first : first + len(body)] = body
        elif fence["output"]:
            outputs.append(fence["body"])
    return Page("\n".join(lines) + "\n", tuple(outputs), "<!-- real time -->" in text)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_blocks_of_a_page_run(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = read_page(path.read_text())
    if not page.real_time:
        virtual = functools.partial(trio.run, clock=MockClock(autojump_threshold=0))
        monkeypatch.setattr(trio, "run", virtual)
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("docs_page")
    # Classes look their module up here, to resolve annotations.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(page.script, str(path), "exec"), vars(module))
    shown = capsys.readouterr().out
    for output in page.outputs:
        assert output in shown
        shown = shown[shown.index(output) + len(output) :]


def test_blocks_become_one_script_at_their_own_lines() -> None:
    text = "# T\n```python\na = 1\n```\n```sh\nls\n```\n```python\nb = a\n```\n"
    text += "<!-- output -->\n```text\n1\n```\n```text\nno output\n```\n"
    page = read_page(text)
    assert page.script.split("\n")[2] == "a = 1"
    assert page.script.split("\n")[8] == "b = a"
    assert page.outputs == ("1\n",)
    assert not page.real_time


def test_the_pages_with_code_are_found() -> None:
    running = [path for path in PAGES if read_page(path.read_text()).script.strip()]
    assert ROOT / "README.md" in running
    assert len(running) > 10
