"""One error for many callers."""

import traceback
from typing import Any, Self

import attrs
import pytest

import csjd
from csjd._core.replicas import replica


class KeywordOnlyError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class WantsMoreError(Exception):
    def __new__(cls, code: int, detail: str) -> Self:
        return super().__new__(cls, code)

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class SlottedError(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        self.code = code


class OwnInitOSError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "gone", path)


@attrs.frozen(slots=True)
class AttrsError(Exception):
    code: int


class OwnGroup(ExceptionGroup[Exception]):  # noqa: ASYNC126  # a replica needs no `derive`
    pass


class ShadowedArgsError(Exception):
    @property
    def args(self) -> tuple[str]:  # type: ignore[override]
        raise AttributeError("kept to itself")


def _unicode_error() -> Exception:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


ERRORS: list[BaseException] = [
    ValueError("no", 1),
    KeyError("key"),
    OSError(2, "gone", "a/file"),
    OwnInitOSError("a/file"),
    StopIteration(5),
    SystemExit(3),
    ImportError("no", name="module", path="path"),
    SyntaxError("no", ("file", 1, 2, "text")),
    _unicode_error(),
    KeywordOnlyError(code=4),
    WantsMoreError(4, "x"),
    SlottedError(4),
    AttrsError(4),
    csjd.QueueFullError("max_pending", 3),
    csjd.MissingBatchResultError("key"),
    ExceptionGroup("several", [ValueError(1), ExceptionGroup("more", [KeyError(2)])]),
    OwnGroup("several", [ValueError(1)]),
]


def _told(error: BaseException) -> Any:
    names: tuple[str, ...] = (
        "errno",
        "strerror",
        "filename",
        "value",
        "code",
        "name",
        "path",
        "msg",
        "lineno",
    )
    names += ("encoding", "object", "start", "end", "reason")
    told: list[Any] = [type(error), error.args if not isinstance(error, BaseExceptionGroup) else ()]
    told += [getattr(error, name, None) for name in names]
    if isinstance(error, BaseExceptionGroup):
        told.append([_told(member) for member in error.exceptions])
    return [*told, str(error), repr(error)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_replica_tells_what_its_original_tells(error: BaseException) -> None:
    twin = replica(error)
    assert twin is not error
    assert _told(twin) == _told(error)


def _raise_while_handling_another(error: BaseException) -> None:
    try:
        raise RuntimeError("in the way")
    except RuntimeError:
        raise error  # noqa: B904


def test_raising_a_replica_leaves_the_original_alone() -> None:
    original: ValueError
    try:
        try:
            raise KeyError(1)
        except KeyError as cause:
            raise ValueError(2) from cause
    except ValueError as error:
        original = error
    original.add_note("note")
    before = traceback.format_exception(original)

    twin = replica(original)
    assert traceback.format_exception(twin) == before
    with pytest.raises(ValueError, match="2"):
        _raise_while_handling_another(twin)
    twin.add_note("another")

    assert traceback.format_exception(original) == before
    assert isinstance(original.__context__, KeyError)
    assert traceback.format_exception(twin) != before


def test_suppressed_context_stays_suppressed() -> None:
    error = ValueError(1)
    error.__context__ = KeyError(2)
    assert replica(error).__suppress_context__ is False
    error.__suppress_context__ = True
    assert replica(error).__suppress_context__ is True
    assert replica(error).__context__ is error.__context__


def test_members_of_a_group_are_replicas_too() -> None:
    group = ExceptionGroup("several", [ValueError(1)])
    assert replica(group).exceptions[0] is not group.exceptions[0]


def test_an_attribute_shadowed_by_its_class_is_replicated_all_the_same() -> None:
    error = ShadowedArgsError("no", 1)
    twin = replica(error)
    assert twin is not error
    assert BaseException.__reduce__(twin)[1] == ("no", 1)


@pytest.mark.parametrize("notes", [None, 7, ("one",)])
def test_notes_that_are_no_list_are_handed_on_as_they_are(notes: Any) -> None:
    error = ValueError("no")
    error.__notes__ = notes
    twin = replica(error)
    assert (twin is not error, twin.args, twin.__notes__) == (True, ("no",), notes)


def test_what_cannot_be_replicated_is_shared() -> None:
    class OutOfOrderError(Exception):
        __slots__ = ()

        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise LookupError("out of order")

    error = OutOfOrderError()
    assert replica(error) is error
    group = replica(ExceptionGroup("several", [error, ValueError(1)]))
    assert group.exceptions[0] is error
    assert _told(group.exceptions[1]) == _told(ValueError(1))
