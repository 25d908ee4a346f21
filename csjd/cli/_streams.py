"""
Standard input and output as commands need them.

Any text can be printed on any terminal, and what could not be printed is an `OSError`
while somebody can still make a status of it, not a word of the interpreter's at its exit.
"""

import contextlib
import errno
import sys
from typing import Any, BinaryIO

import msgspec


def stdin() -> BinaryIO:
    """
    Return standard input.

    Raises:
        OSError: It is closed.
    """
    buffer: BinaryIO = _open(sys.stdin, "input").buffer
    return buffer


def write(line: bytes) -> None:
    """
    Print a line of bytes.

    Raises:
        OSError: It cannot be written, or an earlier one could not.
    """
    _open(sys.stdout, "output").buffer.write(line + b"\n")


def say(text: str) -> None:
    """Print a line of text, with escapes for what the output's encoding lacks; see `write`."""
    output = _open(sys.stdout, "output")
    try:
        line = text.encode(output.encoding, output.errors)
    except UnicodeEncodeError:
        line = text.encode(output.encoding, "backslashreplace")
    write(line)


def say_json(fields: dict[str, Any]) -> None:
    """Print a line of JSON, with escapes for what is not Unicode; see `write`."""
    write(msgspec.json.encode(_encodable(fields)))


def flush() -> None:
    """
    Let go of all that was printed.

    Raises:
        OSError: It cannot be written.
    """
    _open(sys.stdout, "output").flush()


def abandon_output() -> None:
    """Drop what cannot be printed, or the interpreter would try again and exit with 120."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            sys.stdout.close()


def complain(text: str) -> None:
    """Print a line to standard error, if there is one, with escapes as `say` does."""
    if sys.stderr is None:
        return
    encoding = sys.stderr.encoding
    with contextlib.suppress(OSError):
        line = text.encode(encoding, "backslashreplace").decode(encoding)
        print(line, file=sys.stderr, flush=True)


def _open(stream: Any, name: str) -> Any:
    if stream is None:  # as the shell's `<&-` and `>&-` leave it
        raise OSError(errno.EBADF, f"standard {name} is closed")
    return stream


def _encodable(value: Any) -> Any:
    """Return *value* without what UTF-8 lacks: bytes of a file's name that are no text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(one) for one in value]
    return value
