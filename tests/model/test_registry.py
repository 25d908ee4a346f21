import functools
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import csjd

HUGE = 10**400
"""Beyond all floats."""


async def one(job: csjd.Job) -> None: ...
async def two(job: csjd.Job, attempt: csjd.Attempt) -> None: ...
async def optional(job: csjd.Job, attempt: Any = None) -> None: ...
async def keyword(job: csjd.Job, *, verbose: bool = False) -> None: ...
def plain(job: csjd.Job) -> None: ...
def plain_two(job: csjd.Job, attempt: csjd.Attempt | None) -> None: ...


class Callable:
    async def __call__(self, job: csjd.Job) -> None: ...
    async def method(self, job: csjd.Job, attempt: csjd.Attempt) -> None: ...


@functools.wraps(one)
async def wrapped(*args: Any, **kwargs: Any) -> None:
    await one(*args, **kwargs)


@pytest.mark.parametrize(
    ("handler", "threaded", "takes_attempt"),
    [
        (one, False, False),
        (two, False, True),
        (optional, False, False),
        (keyword, False, False),
        (plain, True, False),
        (plain_two, True, True),
        (Callable(), False, False),
        (Callable().method, False, True),
        (functools.partial(keyword, verbose=True), False, False),
        (functools.partial(plain_two, attempt=None), True, False),
        (wrapped, False, False),
        (print, True, False),
    ],
)
def test_handler_is_understood(handler: Any, threaded: bool, takes_attempt: bool) -> None:
    registry = csjd.Registry()
    registry.register("t", handler)
    assert (registry["t"].threaded, registry["t"].takes_attempt) == (threaded, takes_attempt)


def test_registry_is_a_mapping_in_order() -> None:
    registry = csjd.Registry()
    registry.register("b", one)
    registry.register("a", two)
    assert list(registry) == ["b", "a"]
    assert len(registry) == 2
    assert "a" in registry
    assert "c" not in registry


def test_decorator_returns_its_function() -> None:
    registry = csjd.Registry()
    assert registry.handler("t", timeout=3, on_failure="halt")(one) is one
    assert registry["t"].timeout == 3
    assert registry["t"].on_failure.value == "halt"


def _generator(job: csjd.Job) -> Iterator[int]:
    yield 1


async def _async_generator(job: csjd.Job) -> AsyncIterator[int]:  # noqa: ASYNC124
    yield 1


@pytest.mark.parametrize(
    "handler",
    [None, 5, "one", lambda: None, lambda a, b, c: None, _generator, _async_generator],
    ids=repr,
)
def test_what_cannot_be_a_handler_is_refused(handler: Any) -> None:
    registry = csjd.Registry()
    with pytest.raises(ValueError, match="handler"):
        registry.register("t", handler)
    assert len(registry) == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", math.nan),
        ("timeout", "5"),
        ("timeout", HUGE),
        ("retry", 5),
        ("on_failure", "explode"),
    ],
)
def test_unusable_setting_is_refused_by_name(setting: str, value: Any) -> None:
    registry = csjd.Registry()
    with pytest.raises(ValueError, match=f"^{setting} must be"):
        registry.register("t", one, **{setting: value})
    assert len(registry) == 0


def test_type_has_one_handler() -> None:
    registry = csjd.Registry()
    registry.register("t", one)
    with pytest.raises(ValueError, match="'t' already has a handler"):
        registry.register("t", two)
    assert registry["t"].function is one


@pytest.mark.parametrize("type", ["", "a\nb", 5])
def test_unusable_type_is_refused(type: Any) -> None:
    with pytest.raises(csjd.InvalidJobError, match=r"^type "):
        csjd.Registry().register(type, one)
