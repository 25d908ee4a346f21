"""The benchmarks run, and say what they should; how fast anything was is never asked here."""

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks._kit import catalogue
from benchmarks._kit.pairs import Pairs, Stopwatch
from benchmarks._kit.plots import Scale, ratio_plot
from benchmarks._kit.rows import Row, Spread, Target, speedup_row
from benchmarks._kit.tables import markdown_table, text_table

SMALL = 0.004
"""So much of the full size: just enough that no two shapes of a benchmark become the same."""

Rows = dict[str, Row]


def rows_of(name: str) -> Rows:
    result = catalogue.run(name, rounds=2, scale=SMALL)
    assert result.skipped is None
    assert result.title[-1] != "."
    rows = {str(row["case"]): row for row in result.rows}
    assert len(rows) == len(result.rows), "two rows have the same name"
    return rows


def test_every_benchmark_is_found_and_nothing_else() -> None:
    names = catalogue.names()
    assert names[: len(catalogue.FIRST)] == list(catalogue.FIRST)
    assert {"cache", "loader", "durable"} <= set(names)
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("name", ["end_to_end", "awaiting"])
def test_throughput_has_a_row_for_each_number_of_workers(name: str) -> None:
    rows = rows_of(name)
    assert list(rows) == ["1 worker", "4 workers", "8 workers"]
    for row in rows.values():
        assert 0 < row["min"] <= row["q1"] <= row["ratio"] <= row["q3"] <= row["max"] < math.inf
        assert row["csjd_us"] > 0
        assert row["bare_us"] > 0
        assert row["rounds"] == 2
        assert isinstance(row["met"], bool)


def test_sessions_compare_each_shape_with_both_pools_and_with_one_another() -> None:
    rows = rows_of("sessions")
    assert [case.split(",")[0] for case in rows] == [
        *["no-op"] * 3,
        *["one checkpoint"] * 3,
        "cost per job",
    ]
    assert [row["target"][:2] for row in rows.values()] == [*[">="] * 6, "<="]


def test_latency_is_taken_at_two_percentiles() -> None:
    rows = rows_of("latency")
    assert list(rows) == ["p50", "p99"]
    assert rows["p50"]["csjd_us"] <= rows["p99"]["csjd_us"]
    assert "met" not in rows["p99"], "only the median has a target"


def test_pending_jobs_are_weighed_timed_and_their_lag_noted() -> None:
    rows = rows_of("pending")
    assert len(rows) == 9
    lags = [row for case, row in rows.items() if case.startswith("loop lag")]
    assert all(row["figure"] <= row["max"] for row in lags)
    growths = [row for case, row in rows.items() if case.startswith("cost per job")]
    assert all(row["figure"] > 0 for row in growths)


def test_a_reopened_store_is_timed_weighed_and_compacted_under_load() -> None:
    rows = rows_of("reopening")
    assert [row.get("target") for row in rows.values()] == [
        *["<= 15 s", "<= 1024", "<= 10 ms"],
        *[None, None],
    ]
    assert all(row["figure"] > 0 for row in rows.values())
    [lag] = [row for case, row in rows.items() if case.startswith("loop lag")]
    assert lag["figure"] <= lag["max"]


def test_an_idle_dispatcher_takes_no_step() -> None:
    rows = rows_of("idle")
    assert [row["wake-ups"] for row in rows.values()] == [0] * len(rows)
    assert all(row["met"] for row in rows.values())


def test_allocations_tell_pending_jobs_from_ended_ones() -> None:
    # Exact figures, so a bound is no matter of luck; it is the promise of 1 KiB a job.
    for row in rows_of("allocations").values():
        assert 0 < row["pending_bytes"] <= row["peak_bytes"] < 1024
        assert row["pending_blocks"] > 0


# --- the shared pieces -----------------------------------------------------------------


def stopwatch(wall: float) -> Stopwatch:
    watch = Stopwatch()
    watch.wall = watch.cpu = wall
    return watch


def test_a_speed_up_is_the_median_of_the_rounds_own_ratios() -> None:
    pairs = Pairs(
        subject=tuple(map(stopwatch, (1.0, 10.0, 100.0))),
        yardstick=tuple(map(stopwatch, (2.0, 30.0, 100.0))),
    )
    row = speedup_row("case", pairs, jobs=1000, target=Target(least=2.0))
    assert (row["min"], row["ratio"], row["max"]) == (1.0, 2.0, 3.0)
    assert row["csjd_us"] == pytest.approx(10_000)  # the median round's 10 s
    assert row["met"]


@pytest.mark.parametrize(
    ("target", "figure", "met"),
    [
        (Target(least=1.5), 1.5, True),
        (Target(least=1.5), 1.49, False),
        (Target(least=1.0, wanted=1.5), 1.2, True),
        (Target(most=2.5), 2.5, True),
        (Target(most=2.5), 2.51, False),
        (Target(most=0), 0, True),
    ],
)
def test_a_target_is_met_up_to_its_bound(target: Target, figure: float, met: bool) -> None:
    assert target.columns(figure)["met"] is met


def test_the_spread_of_one_round_is_that_round() -> None:
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 3.0, 3.0)


ROW: Row = {
    "case": "a < b & c",
    "ratio": 2.0,
    "q1": 1.5,
    "q3": 2.5,
    "min": 1.0,
    "max": 3.0,
    **Target(least=1.5).columns(2.0),
}


def test_tables_keep_the_verdict_last_and_leave_gaps_empty() -> None:
    text = text_table([ROW, {"case": "other", "us": 0.05}])
    header, first, second = text.splitlines()
    assert header.split()[-2:] == ["target", "met"]
    assert first.endswith("yes")
    assert second.split() == ["other", "0.05"]
    table = markdown_table([ROW])
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_plot_is_well_formed_and_shows_only_ratios() -> None:
    plot = ratio_plot("A title & more", [ROW, {"case": "no ratio", "us": 1.0}])
    assert plot is not None
    texts = [node.text for node in ElementTree.fromstring(plot).iter() if node.text]
    assert "a < b & c" in texts
    assert "2.00" in texts
    assert "no ratio" not in texts
    assert ratio_plot("Nothing to show", [{"case": "no ratio"}]) is None


def test_the_scale_is_symmetrical_about_one() -> None:
    scale = Scale.over([0.5, 2.0])
    assert scale.x(1.0) - scale.x(0.5) == pytest.approx(scale.x(2.0) - scale.x(1.0), abs=0.2)
    assert scale.ticks() == [0.5, 1.0, 2.0]


def test_the_command_prints_and_writes_what_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(command, "QUICK_SCALE", SMALL)
    monkeypatch.setattr("sys.argv", ["benchmarks", "awaiting", "--quick"])
    target = tmp_path / "figures.json"
    arguments = ["awaiting", "idle", "--quick", "--rounds", "1", "--docs", "--json", str(target)]
    command.main([*arguments, "--svg", str(tmp_path / "svg")])

    printed = capsys.readouterr().out
    assert "targets met." in printed
    document: dict[str, Any] = json.loads(target.read_text())
    assert [result["name"] for result in document["results"]] == ["awaiting", "idle"]
    assert document["setting"]["quick"] is True
    assert document["setting"]["rounds"] == 1
    page = (tmp_path / "docs" / "performance-figures.md").read_text()
    assert "## awaiting" in page
    assert "performance-awaiting.svg" in page
    assert [file.name for file in (tmp_path / "svg").iterdir()] == ["performance-awaiting.svg"]


def test_an_unknown_name_is_refused_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["no_such_benchmark"])
    assert "no_such_benchmark" in capsys.readouterr().err


def test_a_missing_peer_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise ModuleNotFoundError("No module named 'peer'", name="peer")

    monkeypatch.setattr(catalogue, "_load", load)
    assert catalogue.run("idle", 1, 1.0).skipped == "peer is not installed"
