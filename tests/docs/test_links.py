"""Every link from one page of the project to another leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.test_blocks import PAGES, name_of

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links, code left out."""
    text = _CODE.sub("", page.read_text())
    return [match["target"] for match in _LINK.finditer(text)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    text = _CODE.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", match["title"].lower()).replace(" ", "-")
        for match in _HEADING.finditer(text)
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if "_generated" in there.parts:
            continue  # made when the docs are built, which fails where it is missing
        assert there.exists(), f"{target} leads nowhere"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{target}: {there.name} has no such heading"


def test_links_and_anchors_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Hello, `big` World!\n[a](b.md#c)\n```\n[not](this)\n```\n![x](y.png)\n")
    assert links(page) == ["b.md#c"]
    assert anchors(page) == {"hello-big-world"}
