"""The example that reads users through cache and batch loader."""

from pathlib import Path

import pytest

import csjd
from examples import cached_users

IDS = [*range(1, 11)] * 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users.sqlite"
    cached_users.make_table(path)
    return path


async def test_tasks_share_their_queries(path: Path) -> None:
    greetings, queries = await cached_users.greet_with_tasks(path, IDS)
    assert sorted(set(greetings))[:2] == ["Hello Ada", "Hello Ben"]
    assert (len(greetings), len(set(greetings))) == (100, 10)
    assert 1 <= queries <= 10


async def test_a_user_who_is_not_there_fails_its_own_job_alone(path: Path) -> None:
    with pytest.RaisesGroup(csjd.MissingBatchResultError, flatten_subgroups=True):
        await cached_users.greet_with_tasks(path, [1, 99])


@pytest.mark.skipif(not hasattr(csjd, "open_dispatcher"), reason="there is no dispatcher yet")
async def test_jobs_share_their_queries(path: Path) -> None:
    greetings, queries = await cached_users.greet_with_jobs(path, IDS)
    assert (len(greetings), len(set(greetings))) == (100, 10)
    assert 1 <= queries <= 10


@pytest.mark.skipif(not hasattr(csjd, "open_dispatcher"), reason="there is no dispatcher yet")
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    cached_users.main()
    assert capsys.readouterr().out.startswith("100 greetings to 10 users took ")
