"""The figures that the README quotes are those that were measured last."""

import re

from tests.docs.test_blocks import ROOT

_RATIO = re.compile(r"\d+\.\d\d")


def test_readme_quotes_ratios_as_they_were_measured() -> None:
    speed = (ROOT / "README.md").read_text().partition("## Speed")[2].partition("\n## ")[0]
    quoted = _RATIO.findall("".join(line for line in speed.splitlines() if line.startswith("|")))
    page = (ROOT / "docs/explanation/performance-figures.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    measured = {row[1] for row in rows}
    assert len(quoted) > 8
    assert set(quoted) <= measured
