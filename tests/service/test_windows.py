"""Due windows: derived from the schedule, the last window and the watermark."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from service.problems import Unprocessable
from service.windows import Grid, coverage, due, each, grid_of
from service.words import DAY, HOUR, Span


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(spans: list[Span]) -> list[str]:
    return [f"{span.start:%m-%d %H}/{span.end:%m-%d %H}" for span in spans]


def test_the_first_window_is_the_first_whole_one_after_the_start() -> None:
    # The car loans begin on 30 October 2018 at 18:00; the first whole month is November.
    found = list(due(grid_of("monthly"), at("2018-10-30T18:00"), None, at("2019-01-31T23:00")))
    assert shown(found) == ["11-01 00/12-01 00", "12-01 00/01-01 00"]


def test_a_start_on_a_boundary_begins_there() -> None:
    assert shown(list(due(grid_of("daily"), at("2018-11-01"), None, at("2018-11-02")))) == ["11-01 00/11-02 00"]


def test_weeks_begin_on_mondays() -> None:
    # 5 November 2018 was a Monday.
    found = list(due(grid_of("weekly"), at("2018-10-30T18:00"), None, at("2018-11-20")))
    assert shown(found) == ["11-05 00/11-12 00", "11-12 00/11-19 00"]


def test_no_window_ends_after_the_watermark() -> None:
    assert shown(list(due(grid_of("hourly"), at("2018-11-01"), None, at("2018-11-01T02:59")))) == [
        "11-01 00/11-01 01",
        "11-01 01/11-01 02",
    ]


def test_what_was_missed_in_a_downtime_is_due_in_order() -> None:
    found = list(due(grid_of("daily"), at("2018-01-01"), at("2018-11-01"), at("2018-11-04T12:00")))
    assert shown(found) == ["11-01 00/11-02 00", "11-02 00/11-03 00", "11-03 00/11-04 00"]


def test_windows_longer_than_their_period_overlap_and_spend_for_the_period_only() -> None:
    grid = grid_of("daily", "7d")
    found = list(due(grid, at("2018-11-01T05:00"), None, at("2018-11-10")))
    assert shown(found) == ["11-02 00/11-09 00", "11-03 00/11-10 00"]
    assert grid.spent == DAY
    assert not grid.tiles


def test_a_window_that_spans_the_activation_of_a_baseline_is_cut_there() -> None:
    cuts = [at("2018-11-02T05:00")]
    found = list(due(grid_of("daily"), at("2018-11-01"), at("2018-11-02"), at("2018-11-04"), cuts))
    assert shown(found) == ["11-02 00/11-02 05", "11-02 05/11-03 00", "11-03 00/11-04 00"]
    after = list(due(grid_of("daily"), at("2018-11-01"), at("2018-11-02T05:00"), at("2018-11-03"), cuts))
    assert shown(after) == ["11-02 05/11-03 00"]


def test_an_overlapping_window_that_spans_an_activation_keeps_the_part_after_it() -> None:
    found = list(due(grid_of("daily", "7d"), at("2018-11-01"), None, at("2018-11-08"), [at("2018-11-03T06:00")]))
    assert shown(found) == ["11-03 06/11-08 00"]


def test_an_offset_moves_the_windows_by_whole_hours() -> None:
    found = list(due(grid_of("daily", offset="6h"), at("2018-11-01"), None, at("2018-11-03T06:00")))
    assert shown(found) == ["11-01 06/11-02 06", "11-02 06/11-03 06"]


def test_a_cron_line_names_its_days_and_is_read_in_utc() -> None:
    # 2 November 2018 was a Friday: after it comes Monday the 5th.
    found = list(due(grid_of("0 6 * * mon-fri", "1d"), at("2018-11-01"), None, at("2018-11-06")))
    assert shown(found) == ["11-01 06/11-02 06", "11-04 06/11-05 06"]


@pytest.mark.parametrize(
    ("schedule", "window", "offset"),
    [
        ("0 6 * * 1", "1d", "0h"),  # numbered days mean different days to different tools
        ("30 6 * * mon", "1d", "0h"),  # not on a whole hour
        ("0 6 * *", "1d", "0h"),
        ("0 99 * * mon", "1d", "0h"),
        ("sometimes", "1d", "0h"),
        ("daily", "2d", "0h"),
        ("daily", "1d", "90m"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(schedule: str, window: str, offset: str) -> None:
    with pytest.raises(Unprocessable):
        grid_of(schedule, window, offset)


def test_months_are_calendar_months_in_leap_years_too() -> None:
    found = [str(end.date()) for end in islice(grid_of("monthly").ends_after(at("2024-01-15")), 3)]
    assert found == ["2024-02-01", "2024-03-01", "2024-04-01"]
    assert grid_of("monthly").ending(at("2024-03-01")).length == timedelta(days=29)


def test_the_last_end_before_a_moment_is_found_without_walking() -> None:
    grid = grid_of("hourly")
    assert grid.last_end(at("1990-01-01"), at("2026-01-01T05:30")) == at("2026-01-01T05:00")
    assert grid.last_end(at("2026-01-01T05:10"), at("2026-01-01T05:30")) is None
    assert Grid("0 6 * * mon", "1d").last_end(at("2018-11-01"), at("2018-11-20")) == at("2018-11-19T06:00")


def test_coverage_is_the_share_of_a_window_inside_the_data() -> None:
    window = Span(at("2018-11-01"), at("2018-11-02"))
    assert coverage(window, Span(at("2018-10-01"), at("2018-12-01"))) == 1.0
    assert coverage(window, Span(at("2018-11-01T18:00"), at("2018-12-01"))) == 0.25
    assert coverage(window, Span(at("2018-11-05"), at("2018-12-01"))) == 0.0


def test_a_past_range_is_cut_into_its_whole_windows() -> None:
    span = Span(at("2018-10-30T18:00"), at("2018-11-02T06:00"))
    assert shown(list(each(span, "1d"))) == ["10-31 00/11-01 00", "11-01 00/11-02 00"]
    assert list(each(span, "1mo")) == []
    assert len(list(each(Span(span.start, span.start + 5 * HOUR), "1h"))) == 5
