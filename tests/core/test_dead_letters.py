"""Dead letters: the latest few, one for an id, and what goes when another comes."""

import pytest

from csjd import Job
from csjd._core.dead_letters import Buried, DeadLetters
from csjd._core.entry import Entry
from csjd._model.handler import describe


async def _handle(job: Job) -> None:
    """Do nothing."""


SPEC = describe("a", _handle)


def _fail(letters: DeadLetters, job_id: str, order: int = 1) -> tuple[Buried | None, list[str]]:
    entry = Entry(Job(type="a", id=job_id), SPEC, order, 0.0)
    entry.attempts = 3
    displaced = letters.bury(entry, ValueError(job_id), timed_out=False, now=2.0)
    assert len(displaced.all) == len(displaced.dropped) + (displaced.replaced is not None)
    return displaced.replaced, [buried.job_id for buried in displaced.dropped]


def _ids(letters: DeadLetters) -> list[str]:
    return [letter.job.id for letter in letters.letters()]


def test_letter_tells_how_its_job_ended() -> None:
    letters = DeadLetters(5)
    _fail(letters, "x", order=7)
    [letter] = letters.letters()
    assert (letter.job.id, letter.attempts, letter.failed) == ("x", 3, 2.0)
    assert str(letter.error) == "x"
    found = letters.find("x")
    assert found is not None
    assert (found.order, found.spec, found.letter) == (7, SPEC, letter)


def test_oldest_make_room_and_are_counted() -> None:
    letters = DeadLetters(2)
    gone = [_fail(letters, job_id) for job_id in "abcd"]
    assert gone == [(None, []), (None, []), (None, ["a"]), (None, ["b"])]
    assert (_ids(letters), letters.dropped, len(letters)) == (["c", "d"], 2, 2)


def test_none_is_kept_if_none_may_be() -> None:
    letters = DeadLetters(0)
    assert _fail(letters, "a") == (None, ["a"])
    assert (letters.letters(), letters.dropped) == ((), 1)


def test_second_letter_of_an_id_replaces_the_first_and_is_the_newest() -> None:
    letters = DeadLetters(2)
    for order, job_id in enumerate("ab"):
        _fail(letters, job_id, order)
    replaced, dropped = _fail(letters, "a", 2)
    assert replaced is not None
    assert (replaced.order, dropped, _ids(letters)) == (0, [], ["b", "a"])
    assert letters.dropped == 0


def test_letter_taken_out_can_be_put_back() -> None:
    letters = DeadLetters(2)
    for job_id in "ab":
        _fail(letters, job_id)
    buried = letters.take_out("a")
    assert (buried.job_id, letters.find("a"), _ids(letters)) == ("a", None, ["b"])
    with pytest.raises(KeyError):
        letters.take_out("a")
    letters.put_back(buried)
    assert _ids(letters) == ["b", "a"]
