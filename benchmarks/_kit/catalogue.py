"""Finding benchmarks by name, and running one."""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from types import ModuleType

import benchmarks
from benchmarks._kit.results import Result

FIRST = ("end_to_end", "awaiting", "sessions", "latency", "pending", "idle", "allocations")
"""These come first, in this order; others follow by name."""


def names() -> list[str]:
    """Return the names of all benchmarks: modules of this package that have a `run`."""
    found = [
        module.name
        for module in pkgutil.iter_modules(benchmarks.__path__)
        if not module.name.startswith("_") and not module.ispkg and _has_run(module.name)
    ]
    return sorted(found, key=lambda name: (FIRST.index(name) if name in FIRST else 99, name))


def run(name: str, rounds: int, scale: float) -> Result:
    """Run a benchmark, or say why it cannot be: a peer it needs is not installed."""
    try:
        module = _load(name)
    except ModuleNotFoundError as missing:
        return Result(name, name, skipped=f"{missing.name} is not installed")
    arguments: dict[str, float] = {}
    if "scale" in inspect.signature(module.run).parameters:
        arguments["scale"] = scale
    rows: Sequence[dict[str, object]] = module.run(rounds, **arguments)
    return Result(name, getattr(module, "TITLE", name), rows)


def _load(name: str) -> ModuleType:
    """Import a benchmark."""
    return importlib.import_module(f"benchmarks.{name}")


def _has_run(name: str) -> bool:
    try:
        return hasattr(_load(name), "run")
    except ModuleNotFoundError:
        return True  # whoever imports what may be missing is a benchmark, not a helper
