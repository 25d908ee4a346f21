"""The generated reference says everything the code does, and its diagrams show every step."""

import re

import attrs
import generated_reference
import pytest
from lifecycle_diagram import DISPATCHER_LAYOUT, JOB_LAYOUT, Layout, Table, arrows, draw

import csjd

TABLES = [(csjd.LIFECYCLE, JOB_LAYOUT), (csjd.DISPATCHER_LIFECYCLE, DISPATCHER_LAYOUT)]


def test_every_public_name_is_on_exactly_one_page() -> None:
    shown = [name for names in generated_reference.grouped().values() for name in names]
    assert sorted(shown) == generated_reference.public_names()
    assert {"Job", "JobEnded", "QueueFullError"} <= set(shown)


def test_every_setting_is_described() -> None:
    page = generated_reference.settings_page()
    for field in attrs.fields(csjd.Config):
        (row,) = re.findall(rf"^\| `{field.name}` \| `.+` \| (.+) \|$", page, re.MULTILINE)
        assert len(row) > 10


def test_every_error_is_described() -> None:
    page = generated_reference.errors_page()
    assert "| `InvalidJobError` | `ValueError` |" in page
    assert "| `JobStoreLockedError` | `JobStoreError` |" in page
    for name in generated_reference.grouped()["Errors"]:
        assert name == "CsjdError" or f"| `{name}` |" in page


@pytest.mark.parametrize(("table", "layout"), TABLES)
def test_a_diagram_has_every_arrow_of_its_table_and_no_other(table: Table, layout: Layout) -> None:
    svg = draw(table, layout, "title")
    drawn = re.findall(r'data-step="(\w+)" data-from="(\w+)" data-to="(\w+)"', svg)
    assert sorted(drawn) == sorted((s.name, a.name, b.name) for s, a, b in arrows(table))
    assert set(re.findall(r'data-state="(\w+)"', svg)) == {state.name for state in layout.centres}


@pytest.mark.parametrize(("table", "layout"), TABLES)
def test_every_state_has_a_place_of_its_own_and_a_meaning(table: Table, layout: Layout) -> None:
    states = list(type(next(iter(layout.centres))))
    assert set(layout.centres) == set(states)
    assert len(set(layout.centres.values())) == len(states)
    page = generated_reference.lifecycle_page(table, layout, "title")
    for state in states:
        assert re.search(rf"^\| \*\*{state.name.lower()}\*\* \| \S.+ \|$", page, re.MULTILINE)
