"""A source distribution has what is needed to run, test and measure csjd."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_source_distribution_has_all_that_the_settings_and_the_makefile_name() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = settings["tool"]
    packed = set(tools["hatch"]["build"]["targets"]["sdist"]["include"])
    checked = {name.partition("/")[0] for name in tools["mypy"]["files"]}
    assert checked | {tools["towncrier"]["directory"]} | {"Makefile", ".ci"} <= packed
    assert all((ROOT / name).exists() for name in packed)
