"""Every example does what it says; on virtual time, except where there is a network."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trio.testing import MockClock

from examples import basic, crawler, durable, flaky_server, ordered_sessions, resizing


async def test_basic_use(autojump_clock: MockClock) -> None:
    assert await basic.main() == ["Hello, Ada!", "Hello, Grace!", "Hello, Barbara!"]


async def test_two_thousand_jobs_keep_the_order_of_their_hundred_sessions(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    witness = await ordered_sessions.main()
    assert witness.out_of_order() == 0
    assert witness.overlaps == 0
    assert len(witness.order) == ordered_sessions.SESSIONS
    assert sum(map(len, witness.order.values())) == ordered_sessions.JOBS
    assert witness.busiest == ordered_sessions.WORKERS  # they did overtake each other
    assert "out of order: 0" in capsys.readouterr().out


def test_the_witness_of_order_sees_what_it_is_there_for() -> None:
    witness = ordered_sessions.Witness()
    witness.begin("a", 2)
    witness.begin("a", 1)
    assert witness.overlaps == 1
    assert witness.out_of_order() == 1


async def test_the_pool_follows_five_phases_of_load(autojump_clock: MockClock) -> None:
    seen = await resizing.main()
    assert [each.phase for each in seen] == list(resizing.PHASES)
    quiet, _, peak, _, night = seen
    assert quiet.workers == (resizing.SMALLEST, resizing.SMALLEST)
    assert peak.workers == (resizing.LARGEST, resizing.LARGEST)
    assert night.workers[0] == resizing.SMALLEST
    assert peak.succeeded > quiet.succeeded * 5


async def test_a_flaky_server_gives_up_every_page_that_it_has() -> None:
    metrics = await flaky_server.main()
    assert metrics.succeeded == flaky_server.PAGES
    assert metrics.failed == metrics.dead_letters == 1
    assert metrics.retries > 0
    assert metrics.attempts == metrics.accepted + metrics.retries


async def test_the_crawler_fetches_each_page_once_a_round_and_sees_what_changed() -> None:
    finished, metrics = await crawler.main(rounds=3, interval=0.01)
    pages = {f"/page/{number}" for number in range(crawler.PAGES)}
    assert finished.changed == [pages, {"/page/0"}, {"/page/0"}]
    assert metrics.succeeded == 3 * (1 + crawler.PAGES)
    assert metrics.failed == 0
    assert metrics.duplicates > crawler.PAGES


def test_killed_letter_writer_goes_on_where_it_was(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "examples.durable", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "wrote to Ada\n"
        process.kill()
        assert process.stdout.read() in ("", "wrote to Grace\n")
    assert process.returncode == -signal.SIGKILL
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert "letters of the last run are still to be written" in again
    assert again.endswith("wrote to Barbara\nwrote to Edith\n")
    assert durable.registry["letter"].type == "letter"
