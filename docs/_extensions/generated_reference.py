"""
A Sphinx extension that writes the reference pages that code already says.

Before each build it writes, into `docs/reference/_generated/`, the public names by group,
the settings, the errors and the lifecycles, so that none of them can be out of date.
"""

import enum
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
from docutils import nodes
from lifecycle_diagram import DISPATCHER_LAYOUT, JOB_LAYOUT, Table, draw
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

import csjd
import csjd.stores
import csjd.testing

GROUPS: dict[str, tuple[str, ...]] = {
    "Dispatcher": ("open_dispatcher", "Dispatcher", "Config", "Retry", "RetryPolicy"),
    "Jobs": ("Job", "Receipt", "BatchReport", "Outcome", "Succeeded", "Failed", "TimedOut",
             "Cancelled"),
    "Handlers": ("Registry", "Attempt", "Handler", "HandlerSpec", "OnFailure", "permanent",
                 "PermanentError", "Snooze", "RetryAfter"),
    "Metrics": ("MetricsSnapshot", "Histogram", "WorkerStats", "SessionInfo",
                "SessionDistribution", "EndedJob", "DeadLetter", "StopReport", "StuckHandler"),
    "States": ("JobState", "JobStep", "LIFECYCLE", "DispatcherState", "DispatcherStep",
               "DISPATCHER_LIFECYCLE"),
    "Caching and batching": ("open_cache", "TTLCache", "CacheStatistics", "open_batch_loader",
                             "BatchLoader"),
    "Stores": ("FileJobStore", "JobStore"),
}  # fmt: skip
"""Public names that belong together, the most important first; the rest is sorted by kind."""

MODULES: tuple[ModuleType, ...] = (csjd.stores, csjd.testing)
"""Public modules beside `csjd` that have a page each."""


def public_names(module: ModuleType = csjd) -> list[str]:
    """Return every name that importing *module* offers, sorted."""
    return sorted(_offered(module))


def _offered(module: ModuleType) -> dict[str, object]:
    """Return the public names of *module* and what they stand for, in its own order."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def grouped() -> dict[str, list[str]]:
    """Return the public names by group; what no group claims is an event, an error or other."""
    groups = {title: list(names) for title, names in GROUPS.items()}
    claimed = {name for names in groups.values() for name in names}
    for name in public_names():
        if name not in claimed:
            groups.setdefault(_kind(getattr(csjd, name), name), []).append(name)
    return {title: names for title, names in groups.items() if names}


def _kind(value: object, name: str) -> str:
    if name == "Observer" or _is_subclass(value, csjd.Event):
        return "Events"
    if _is_subclass(value, BaseException):
        return "Errors"
    return "Caching and batching" if name.startswith(("Batch", "Cache")) else "More"


def _is_subclass(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


BUILT_BY_USERS = frozenset(
    {
        "Job",
        "Config",
        "Retry",
        "Registry",
        "Snooze",
        "RetryAfter",
        "FileJobStore",
        "logs.LogObserver",
    }
)
"""Classes of `csjd` whose signature is shown; all others are got from it, ready made."""

BUILT_AT_LENGTH = frozenset({"csjd.testing.Checker", "csjd.testing.Model"})
"""Classes of the other modules whose signature is not: it is long, and says little."""


def _public_places() -> dict[str, str]:
    """Return, for where each public class and function is written, the name it is public by."""
    places: dict[str, str] = {}
    for module in (csjd, *MODULES):
        for name, value in _offered(module).items():
            if inspect.isclass(value) or inspect.isfunction(value):
                place = f"{value.__module__}.{value.__qualname__}"
                places.setdefault(place, f"{module.__name__}.{name}")
    return places


PUBLIC = _public_places()


# --- pages -------------------------------------------------------------------------------


def api_page(title: str, names: Iterable[str]) -> str:
    """Return a page that documents the *names* from their docstrings."""
    directives = [_directive(csjd, name) for name in names]
    return "\n".join([f"# {title}\n", "```{eval-rst}", *directives, "```", ""])


def module_page(module: ModuleType) -> str:
    """Return a page that documents what *module* offers, in the order it is written in."""
    name, own = module.__name__, _offered(module)
    also = [each for each in own if own[each] is vars(csjd).get(each)]
    own = dict(sorted(own.items(), key=_written_at(own.values())))
    links = " and ".join(f":py:class:`csjd.{each}`" for each in also)
    return "\n".join(
        [
            f"# {name}\n",
            "```{eval-rst}",
            f".. automodule:: {name}\n   :no-members:\n",
            *([f"{links} are offered here, too.\n"] if also else []),
            *(_directive(module, each) for each in own if each not in also),
            "```",
            "",
        ]
    )


def _written_at(values: Iterable[object]) -> Callable[[tuple[str, object]], tuple[int, int]]:
    """Return a key to sort names by: where, in the modules that *values* come from, they stand."""
    modules = dict.fromkeys(getattr(each, "__module__", None) for each in values)
    analyzers = [ModuleAnalyzer.for_module(name) for name in modules if name in sys.modules]
    for analyzer in analyzers:
        analyzer.analyze()

    def place(item: tuple[str, object]) -> tuple[int, int]:
        name, value = item
        written_in = getattr(value, "__module__", None)
        for number, analyzer in enumerate(analyzers):
            # Plain values do not know where they come from.
            if name in analyzer.tagorder and written_in in (analyzer.modname, "types", None):
                return number, analyzer.tagorder[name]
        raise AssertionError(f"nobody knows where {name} is written")

    return place


def _directive(module: ModuleType, name: str) -> str:
    value, full_name = getattr(module, name), f"{module.__name__}.{name}"
    if inspect.isclass(value):
        return f".. autoclass:: {full_name}\n"
    if inspect.isfunction(value):
        return f".. autofunction:: {full_name}\n"
    # Aliases and tables are plain values: what is said about them is only in the source.
    return f".. py:data:: {full_name}\n\n   {_value_docs().get(name, '')}\n"


def _value_docs() -> dict[str, str]:
    """Return what the source says about public names that are neither classes nor functions."""
    about = {
        "LIFECYCLE": "What each step makes of each state of a job, `LIFECYCLE[step][state]`.",
        "DISPATCHER_LIFECYCLE": "The same for a dispatcher.",
    }
    for module in [name for name in sys.modules if name.startswith(("csjd._", "csjd.testing."))]:
        analyzer = ModuleAnalyzer.for_module(module)
        analyzer.analyze()
        for (owner, name), lines in analyzer.attr_docs.items():
            if not owner:
                about.setdefault(name, " ".join(lines).strip())
    return about


def settings_page() -> str:
    """Return the fields of `Config` with their defaults and docstrings."""
    about = _field_docs(csjd.Config)
    rows = [
        (f"`{field.name}`", f"`{_default(field)}`", about[field.name])
        for field in attrs.fields(csjd.Config)
    ]
    return _table(("setting", "default", "meaning"), rows)


def errors_page() -> str:
    """Return the errors csjd raises, with what each is besides and what it means."""
    errors = [
        getattr(csjd, name)
        for name in public_names()
        if _is_subclass(getattr(csjd, name), csjd.CsjdError) and name != "CsjdError"
    ]
    rows = [
        (f"`{error.__name__}`", _besides(error), inspect.cleandoc(error.__doc__ or ""))
        for error in errors
    ]
    return _table(("error", "also a", "meaning"), rows)


def lifecycle_page(table: Table, layout: Any, title: str) -> str:
    """Return the diagram of *table* and, below, its steps in words."""
    rows = [
        (
            step.name.lower().replace("_", " "),
            str(step.value) if step.value != step.name.lower() else "",
            ", ".join(f"{a.name.lower()} → {b.name.lower()}" for a, b in row.items()),
        )
        for step, row in table.items()
    ]
    columns = ("step", "when", "leads")
    if not any(when for _, when, _ in rows):
        columns, rows = ("step", "leads"), [(s, leads) for s, _, leads in rows]  # type: ignore[assignment, misc]
    states = [
        (f"**{state.name.lower()}**", about)
        for state, about in zip(layout.centres, _state_docs(layout), strict=True)
    ]
    return "\n".join(
        [
            "```{raw} html",
            draw(table, layout, title),
            "```",
            "",
            _table(("state", "meaning"), states),
            _table(columns, rows),
        ]
    )


def _state_docs(layout: Any) -> list[str]:
    about = _field_docs(type(next(iter(layout.centres))))
    return [about[state.name] for state in layout.centres]


def _field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings that follow the attributes of *cls* in its source."""
    analyzer = ModuleAnalyzer.for_module(cls.__module__)
    analyzer.analyze()
    return {
        name: " ".join(lines).strip()
        for (owner, name), lines in analyzer.attr_docs.items()
        if owner == cls.__name__
    }


def _default(field: "attrs.Attribute[Any]") -> str:
    factory = getattr(field.default, "factory", None)
    return repr(field.default) if factory is None else f"{factory.__name__}()"


def _besides(error: type) -> str:
    """Return the built-in exceptions, and the families, that *error* belongs to."""
    bases = [base.__name__ for base in error.__mro__[1:] if base is not csjd.CsjdError]
    bases = bases[: bases.index("Exception")]
    return ", ".join(f"`{base}`" for base in bases if not base.startswith("_"))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# --- Sphinx ------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Return every generated page by its file name."""
    titles = {title.lower().replace(" ", "-"): title for title in grouped()}
    made = {f"{slug}.md": api_page(title, grouped()[title]) for slug, title in titles.items()}
    made.update({f"{module.__name__}.md": module_page(module) for module in MODULES})
    index = "\n".join(f"{title} <{slug}>" for slug, title in titles.items())
    return {
        **made,
        "index.md": f"# Public names\n\nAll of them: `import csjd`.\n\n"
        f"```{{toctree}}\n:maxdepth: 2\n\n{index}\n```\n",
        "settings.inc": settings_page(),
        "errors.inc": errors_page(),
        "job_lifecycle.inc": lifecycle_page(csjd.LIFECYCLE, JOB_LAYOUT, "The life of a job"),
        "dispatcher_lifecycle.inc": lifecycle_page(
            csjd.DISPATCHER_LIFECYCLE, DISPATCHER_LAYOUT, "The life of a dispatcher"
        ),
    }


def write_pages(app: Sphinx) -> None:
    """Write what has changed, so that an unchanged page is not built again."""
    folder = Path(app.srcdir) / "reference" / "_generated"
    folder.mkdir(exist_ok=True)
    made = pages()
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.iterdir():
        if path.name not in made:
            path.unlink()


def read_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """
    Turn Google's headings into what Sphinx knows.

    Done here and not by the napoleon extension, which takes "Seconds: not below 0", said of
    an attribute, for a type and a description.
    """
    if what not in {"attribute", "data", "property"}:
        config: Any = Config(napoleon_use_rtype=False)
        lines[:] = GoogleDocstring(lines, config, app).lines()


def tidy_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    result: str | None,
) -> tuple[str, str | None] | None:
    """Leave out how a class is built that users never build, and defaults made by a function."""
    if what not in {"class", "exception"} or not name.startswith("csjd.") or not signature:
        return None
    if not _is_built_by_users(name, obj):
        return "", None
    return signature.replace("NOTHING", "..."), result


def _is_built_by_users(name: str, obj: object) -> bool:
    """Whether the signature of the class *name* is of use to its reader."""
    if name.rpartition(".")[0] not in {each.__name__ for each in MODULES}:
        return name.removeprefix("csjd.") in BUILT_BY_USERS
    made_otherwise = _is_subclass(obj, enum.Enum) or getattr(obj, "_is_protocol", False)
    return not (made_otherwise or name in BUILT_AT_LENGTH)


def unlink_builtin(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the annotation `type[...]` from being linked to fields of that name."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("refdomain") == "py" and node.get("reftarget") == "type":
            node.replace_self(node.children)


def resolve_private(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Link an annotation, which names the module a class is written in, to its public name."""
    target = str(node.get("reftarget", ""))
    public = PUBLIC.get(target)
    if public is None and "." not in target:
        known = (each for each in (csjd, *MODULES) if target in _offered(each))
        public = next((f"{each.__name__}.{target}" for each in known), None)
    if node.get("refdomain") != "py" or public is None:
        return None
    return env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, "obj", public, node, content
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("doctree-read", unlink_builtin)
    app.connect("missing-reference", resolve_private)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.stdout.write("\n".join(pages()))
