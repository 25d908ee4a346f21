"""The house: lower floors never import higher ones, and the core knows no clock."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import csjd

ROOT = Path(csjd.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# Each floor may import itself and what is listed with it.
FLOORS = {
    "_model": set(),
    "_core": {"_model"},
    "_store": {"_model", "_core"},
    "_runtime": {"_model", "_core", "_store"},
    "brokers": {"_model", "_core", "_runtime"},
}
# Built on Trio and the lower floors, beside the dispatcher, each with a room of its own
# behind its face; all they share with the dispatcher up there is how a library keeps tasks
# in its caller's nursery, and how these sleep.
BESIDE = {"caching": "_caching", "batching": "_batching"}
SHARED_WITH_BESIDE = {
    f"csjd._runtime.{name}" for name in ("annex", "blame", "clock", "crew", "home", "parking")
}
# Public faces: re-exports and nothing else.
FACES = {"__init__", "stores"}
# Written as a user would write them.
USERS = {"metrics", "logs", "tracing", "web", "cli", "testing", "__main__"}

BANNED = {"trio", "random", "time"}
# Types only, or where wall-clock time is made at the edge: each with its reason.
ALLOWED = {
    ("_model/identity.py", "time"): "ids are made from wall-clock time, at the edge",
    ("_model/retry.py", "random"): "the type of the source a policy is given",
    ("_core/verdict.py", "random"): "the type of the source it is given",
}
# What may be taken from `random` there: the type, never the module's own generator.
TYPES_ONLY = {"random": {"Random"}}


def _floor(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name) of every import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what they reach"
            for alias in node.names:
                yield str(node.module), alias.name


def _own(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (floor, module) of every import of csjd's own modules."""
    for module, name in _imports(path):
        if module == "csjd" and name is not None and not (ROOT / name).exists():
            yield "csjd", module
        elif module.split(".")[0] == "csjd":
            parts = [*module.split("."), *([name] if module == "csjd" and name else [])]
            yield (parts[1] if len(parts) > 1 else "csjd"), module


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_stands_on_a_known_floor(path: Path) -> None:
    assert _floor(path) in {*FLOORS, *BESIDE, *BESIDE.values(), *USERS, *FACES}


@pytest.mark.parametrize("path", [p for p in MODULES if _floor(p) in FLOORS], ids=_name)
def test_imports_point_down(path: Path) -> None:
    floor = _floor(path)
    for imported, module in _own(path):
        assert imported in FLOORS[floor] | {floor}, f"{_name(path)} imports {module}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if _floor(p) in {*BESIDE, *BESIDE.values()}], ids=_name
)
def test_what_stands_beside_the_dispatcher_does_not_use_it(path: Path) -> None:
    for imported, module in _own(path):
        below = {"_model", "_core", BESIDE.get(_floor(path), _floor(path))}
        assert imported in below or module in SHARED_WITH_BESIDE, f"{_name(path)} imports {module}"


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if _floor(p) in USERS - {"testing"}],  # the kit of tests may look inside
    ids=_name,
)
def test_integrations_use_csjd_as_a_user_would(path: Path) -> None:
    for imported, module in _own(path):
        faces = {"csjd", "stores", _floor(path), *({"cli"} if _floor(path) == "__main__" else ())}
        assert imported in faces, f"{_name(path)} imports {module}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if _floor(p) in ("_model", "_core", "_store")], ids=_name
)
def test_lower_floors_know_neither_trio_nor_clock_nor_chance(path: Path) -> None:
    for module, name in _imports(path):
        top = module.split(".")[0]
        if top not in BANNED or (_floor(path) == "_store" and top == "time"):
            continue
        assert (_name(path), top) in ALLOWED, f"{_name(path)} imports {module}"
        assert name in TYPES_ONLY.get(top, {name}), f"{_name(path)} uses {module}.{name}"


def test_every_exception_to_the_rule_is_needed() -> None:
    used = {(_name(path), module.split(".")[0]) for path in MODULES for module, _ in _imports(path)}
    assert set(ALLOWED) <= used


@pytest.mark.parametrize("face", sorted(FACES))
def test_a_front_door_only_re_exports(face: str) -> None:
    tree = ast.parse((ROOT / f"{face}.py").read_text(encoding="utf-8"))
    docstring, *rest = tree.body
    assert isinstance(docstring, ast.Expr)
    for node in rest:
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name} is not re-exported explicitly"
