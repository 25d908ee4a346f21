"""What a usable name and a usable number are; shared by jobs, settings and the registry."""

import math
import re

from csjd._model.errors import InvalidJobError

MAX_NAME_BYTES = 512
# No name of up to this many characters can be longer than that in UTF-8.
_SURELY_SHORT = MAX_NAME_BYTES // 4
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_name(field: str, value: object) -> None:
    """
    Refuse what cannot be an id, a type or a session.

    Raises:
        InvalidJobError: Naming *field*, if *value* is not a non-empty str of at most 512
            bytes in UTF-8 without control characters.
    """
    if not isinstance(value, str):
        raise InvalidJobError(field, f"must be a str, got {type(value).__name__}")
    if not value:
        raise InvalidJobError(field, "must not be empty")
    if _CONTROL.search(value):
        raise InvalidJobError(field, f"must hold no control characters, got {value[:40]!r}")
    if len(value) <= _SURELY_SHORT and value.isascii():
        return
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidJobError(field, "must be encodable as UTF-8 (lone surrogate)") from None
    if size > MAX_NAME_BYTES:
        raise InvalidJobError(field, f"must be at most {MAX_NAME_BYTES} bytes, got {size}")


def is_number(value: object) -> bool:
    """
    Whether *value* is an int or float that can be reckoned with as a float.

    NaN cannot, nor can an int beyond all floats; True and False are no numbers.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def is_integer(value: object) -> bool:
    """Whether *value* is an int (True and False are not)."""
    return isinstance(value, int) and not isinstance(value, bool)
