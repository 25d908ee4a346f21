"""What one source file says: its definitions, the names it uses, the words of its docstrings."""

import ast
import re
import warnings
from collections import Counter
from pathlib import Path

import attrs

_WORD = re.compile(r"[a-z]{3,}")
# Too ordinary to say anything about a library.
_STOP_WORDS = frozenset(
    re.findall(
        _WORD,
        """
        all also and any are been but can class default does each first for from given has have
        her his how into its may more must name new none not note now object one only other our
        out return returns same self should some string such than that the their them then there
        these they this true false type use used uses using value want was were what when where
        which while will with without would you your
        """,
    )
)


@attrs.frozen(kw_only=True)
class FileScan:
    """One file's share of the index; names by how often they occur."""

    path: str
    """Relative to the library's root."""
    size: int
    """Bytes."""
    lines: int
    definitions: Counter[str]
    """Functions and classes, wherever they are nested."""
    names: Counter[str]
    """Identifiers that are read, written or passed: variables, attributes, parameters."""
    words: Counter[str]
    """Words of the docstrings, in lower case, without the most ordinary ones."""


def scan_file(root: Path, path: str) -> FileScan:
    """
    Read and parse one file.

    Raises:
        OSError: It cannot be read.
        SyntaxError: It is no Python of this interpreter's version.
    """
    source = (root / path).read_bytes()
    scan = FileScan(
        path=path,
        size=len(source),
        lines=source.count(b"\n") + (not source.endswith(b"\n") and bool(source)),
        definitions=Counter(),
        names=Counter(),
        words=Counter(),
    )
    for node in ast.walk(_parse(source, path)):
        _note(node, scan)
    return scan


def _parse(source: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(source, filename=path)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, absurd nesting
        raise SyntaxError(str(error) or type(error).__name__) from error


def _note(node: ast.AST, scan: FileScan) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            scan.definitions[node.name] += 1
        case ast.Name():
            scan.names[node.id] += 1
        case ast.Attribute():
            scan.names[node.attr] += 1
        case ast.arg():
            scan.names[node.arg] += 1
    if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        text = ast.get_docstring(node, clean=False)
        if text is not None:
            words = _WORD.findall(text.lower())
            scan.words.update(word for word in words if word not in _STOP_WORDS)


def silence_parser() -> None:
    """
    Keep the compiler from warning about old code, for the whole process.

    The warnings are about other people's escapes and comparisons, and the filter must be
    set once before there are threads: changing it is not safe while they run.
    """
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning, message="invalid")
