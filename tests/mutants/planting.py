"""How a defect is planted: a named function is replaced for a while, or a line in one edited."""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs


class AnchorVanishedError(AssertionError):
    """What a mutant changes is no longer there: adapt the mutant to the code."""


@attrs.frozen
class Mutant:
    """One planted defect."""

    name: str
    history: str
    """Where it was a real bug, and what it did there."""
    plant: Callable[[], "Planting"]


Planting = tuple[Any, str, Any]
"""What is replaced: (owner, name, replacement)."""


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> Planting:
    """Replace attribute *name* of *owner* by what *make* returns for the original."""
    original = inspect.getattr_static(owner, name, None)
    if not callable(original):
        raise AnchorVanishedError(f"{owner.__name__}.{name} is gone")
    return owner, name, make(original)


def edit(owner: Any, name: str, *edits: tuple[str, str]) -> Planting:
    """Replace function *name* of *owner* by one with a few words of its source changed."""
    original = inspect.unwrap(inspect.getattr_static(owner, name, None) or _gone(owner, name))
    source = textwrap.dedent(inspect.getsource(original))
    for old, new in edits:
        if source.count(old) != 1:
            raise AnchorVanishedError(
                f"{owner.__name__}.{name} has {source.count(old)} times {old!r}, not once"
            )
        source = source.replace(old, new)
    space: dict[str, Any] = {}
    exec(compile(source, f"<mutant of {name}>", "exec"), original.__globals__, space)
    return owner, name, space[name]


def _gone(owner: Any, name: str) -> Any:
    raise AnchorVanishedError(f"{owner.__name__}.{name} is gone")


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Have the defect in the code while entered."""
    owner, name, replacement = mutant.plant()
    original = inspect.getattr_static(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)
