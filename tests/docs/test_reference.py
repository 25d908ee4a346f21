"""The generated reference says everything the code does, and its diagrams show every step."""

import re
import typing
from types import ModuleType

import attrs
import generated_reference
import pytest
from lifecycle_diagram import DISPATCHER_LAYOUT, JOB_LAYOUT, Layout, Table, arrows, draw

import csjd
from csjd import stores

TABLES = [(csjd.LIFECYCLE, JOB_LAYOUT), (csjd.DISPATCHER_LIFECYCLE, DISPATCHER_LAYOUT)]


def test_every_public_name_is_on_exactly_one_page() -> None:
    shown = [name for names in generated_reference.grouped().values() for name in names]
    assert sorted(shown) == generated_reference.public_names()
    assert {"Job", "JobEnded", "QueueFullError"} <= set(shown)


@pytest.mark.parametrize("module", generated_reference.MODULES, ids=lambda module: module.__name__)
def test_every_public_name_of_a_module_is_on_its_page(module: ModuleType) -> None:
    page = generated_reference.module_page(module)
    shown = re.findall(rf"^.. (?:auto\w+|py:data):: {module.__name__}\.(\w+)$", page, re.MULTILINE)
    linked = re.findall(r"`csjd\.(\w+)`", page)
    assert sorted([*shown, *linked]) == generated_reference.public_names(module)
    assert f"{module.__name__}.md" in generated_reference.pages()


def test_values_of_the_stores_are_not_taken_for_those_of_the_same_name() -> None:
    page = generated_reference.module_page(stores)
    for name in ("DeadLetter", "Resumed"):
        assert getattr(stores, name) is not getattr(csjd, name)
        assert f".. autoclass:: csjd.stores.{name}\n" in page
        assert generated_reference.PUBLIC[f"csjd._model.storing.{name}"] == f"csjd.stores.{name}"
    assert generated_reference.PUBLIC["csjd._model.metrics.DeadLetter"] == "csjd.DeadLetter"
    assert generated_reference.PUBLIC["csjd._model.storing.JobStore"] == "csjd.JobStore"


def test_names_of_a_module_are_in_the_order_they_are_written_in() -> None:
    page = generated_reference.module_page(stores)
    shown = re.findall(r"^.. [\w:]+ csjd.stores.(\w+)$", page, re.MULTILINE)
    operations = [each.__name__ for each in typing.get_args(stores.Operation)]
    first = shown.index("Accepted")
    assert shown[first : first + len(operations)] == operations
    assert shown.index("Operation") == first + len(operations)


def test_groups_name_what_there_is() -> None:
    for names in generated_reference.GROUPS.values():
        assert set(names) <= set(generated_reference.public_names())


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
