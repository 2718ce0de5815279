"""Whatever comes in whatever order: what the profiles say is what the rows say, by another way of counting."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.sparse import csr_array
from sqlalchemy import event, select

from monitors.layout import CategoryLayout, Layout, NumericLayout
from monitors.profile import CategoryProfile, NumericProfile, Profile
from service import profiles
from service.database import from_microseconds
from service.tables import ArrivalRow, DirtyRow, ModelRow, PendingTruthRow, ProfileRow, ReplayRow, VersionRow
from service.words import Span, bucket_start
from tests.running import PATIENCE
from tests.service.records import COLUMNS, HOUR, START, Shop, hours

LENGTH = 75
"""Hours of the streams, a little over three days."""
LATENESS = HOUR


@dataclass
class Story:
    """A stream of records in the order in which they are acknowledged, and what must be true of them in the end."""

    shop: Shop
    random: np.random.Generator
    predictions: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    clock: int = START + LENGTH * HOUR

    def record(self, number: int, version: str | None) -> dict[str, Any]:
        """Draw a prediction of an id, anywhere in the stream."""
        age = float(self.random.integers(18, 80)) if self.random.random() > 0.1 else None
        return {
            "prediction_id": f"id-{number}",
            "version": version,
            "timestamp": START + int(self.random.integers(0, LENGTH * HOUR)),
            "features.age": age,
            "features.job": str(self.random.choice(["clerk", "smith", "baker", "judge"])),
            "prediction": str(self.random.integers(0, 2)),
            "score": float(self.random.random()),
        }

    def post(self, records: list[dict[str, Any]], kind: str) -> None:
        """Acknowledge records of a kind, a second after the last ones."""
        self.clock += 1_000_000
        came = [record | {"received_at": self.clock} for record in records]
        if kind == "predictions":
            came = [record | {"version": record["version"]} for record in came]
        self.shop.put(kind, came, {"features.age": pa.float64(), "features.job": pa.string()})
        (self.predictions if kind == "predictions" else self.labels).extend(came)

    def told(self) -> pd.DataFrame:
        """Return each prediction that counts, with its label, from the raw records alone."""
        raw = pd.DataFrame(self.predictions)
        raw["version"] = raw["version"].fillna("a")
        first = raw.drop_duplicates(["version", "prediction_id"], keep="first").reset_index(drop=True)
        first["ground_truth"] = None
        if self.labels:
            said = pd.DataFrame(self.labels)
            said["order"] = range(len(said))
            said = said.sort_values(["timestamp", "received_at", "order"])
            truths = []
            for version, name in zip(first["version"], first["prediction_id"], strict=True):
                mine = said[(said["prediction_id"] == name) & (said["version"].isna() | (said["version"] == version))]
                value = mine["ground_truth"].iloc[-1] if len(mine) else None
                truths.append(value if isinstance(value, str) else None)
            first["ground_truth"] = pd.Series(truths, dtype=object)
        first["bucket"] = first["timestamp"] // HOUR
        return first


def check(profile: Profile, rows: pd.DataFrame, layout: Layout, *, labels: bool) -> None:
    """Compare a profile with counts made by pandas and NumPy."""
    assert profile.rows == len(rows)
    names = {"features.age", "features.job", "prediction", "score"} | ({"ground_truth"} if labels else set())
    assert names <= set(profile.columns)
    for name in names:
        values, bins, found = rows[name].dropna(), layout.columns[name], profile.columns[name]
        assert found.missing == len(rows) - len(values), name
        if isinstance(bins, CategoryLayout):
            assert isinstance(found, CategoryProfile)
            known = values.value_counts()
            named = [int(known.get(category, 0)) for category in bins.categories]
            assert found.counts.tolist() == [*named, len(values) - sum(named)], name
        else:
            assert isinstance(bins, NumericLayout)
            assert isinstance(found, NumericProfile)
            numbers = values.to_numpy(float)
            after = np.searchsorted(bins.edges, numbers, side="right")
            if bins.tied:
                equal = np.isin(numbers, bins.edges)
                cells = np.where(equal, 2 * after - 1, 2 * after)
            else:
                cells = after
            assert found.counts.tolist() == np.bincount(cells, minlength=bins.cells).tolist(), name
            if len(numbers):
                assert (found.minimum, found.maximum) == (numbers.min(), numbers.max())
                assert found.mean == pytest.approx(numbers.mean(), rel=1e-12)
                assert found.m2 == pytest.approx(((numbers - numbers.mean()) ** 2).sum(), rel=1e-9, abs=1e-9)
    if labels and len(rows):
        assert profile.outcomes["all"].sum(axis=(0, 3)).tolist() == confusion(rows)


def confusion(rows: pd.DataFrame) -> list[list[float]]:
    """Count rows by label and prediction: 0, 1, unknown."""
    places = {"0": 0, "1": 1}
    counted = np.zeros((3, 3))
    for truth, prediction in zip(rows["ground_truth"], rows["prediction"], strict=True):
        counted[places.get(truth, 2) if isinstance(truth, str) else 2, places[prediction]] += 1
    return counted.tolist()


def check_hours(found: csr_array | None, rows: pd.DataFrame, layout: Layout) -> None:
    """Compare the outcomes of hours side by side with counts made by pandas."""
    assert found is not None
    table = layout.tables["all"]
    cells = found[:, table.offset : table.offset + table.size].toarray().reshape(-1, *table.shape)
    assert cells.sum(axis=(1, 4)).tolist() == [confusion(part) for _, part in rows.groupby("bucket")]


def tell(shop: Shop, seed: int, steps: int = 40) -> Story:
    """Play a random story: records again and late, labels before, after, corrected, withdrawn, with seals and looks."""
    story = Story(shop, np.random.default_rng(seed))
    random = story.random
    example = pa.Table.from_pylist(
        [{**story.record(i, "a"), "ground_truth": str(i % 2)} for i in range(300)]
    ).drop_columns(["prediction_id", "version", "timestamp"])
    layouts = {name: shop.layout(COLUMNS, example, name) for name in ("a", "b")}
    for _ in range(steps):
        action = random.choice(["new", "again", "labels", "labels", "seal", "look"])
        if action == "new":
            numbers = random.integers(0, 400, int(random.integers(1, 60)))
            named = (None, "a", "b")[int(random.integers(0, 3))]
            story.post([story.record(int(n), named) for n in numbers], "predictions")
        elif action == "again" and story.predictions:
            chosen = random.integers(0, len(story.predictions), 20)
            story.post([dict(story.predictions[int(i)]) for i in chosen], "predictions")
        elif action == "labels":
            story.post([label(story) for _ in range(int(random.integers(1, 40)))], "ground_truth")
        elif action == "seal":
            shop.seal()
        else:
            look(shop, story, bool(random.integers(0, 2)), None)
    shop.seal()
    rows = story.told()
    for name in ("a", "b"):
        mine = rows[rows["version"] == name]
        spans = [hours(0, LENGTH), hours(5, 60), hours(24, 48), hours(30, 31)]
        for labels in (False, True):
            with shop.database.reading() as session:
                version = session.get_one(VersionRow, shop.version_ids[name])
                asked = [[spans[0]], [spans[1]], [spans[2]], [spans[3]], [spans[3], hours(40, 90)]]
                *profiles, apart = shop.profiles.windows(session, version, 1, asked, labels=labels)
                cuts = [shop.profiles.bucket_outcomes(session, version, 1, span) if labels else None for span in spans]
            for span, found, cut in zip(spans, profiles, cuts, strict=True):
                inside = mine[mine["bucket"].isin(span.hours)]
                check(found, inside, layouts[name], labels=labels)
                if labels and len(inside):
                    check_hours(cut, inside, layouts[name])
            check(
                apart,
                mine[mine["bucket"].isin([*hours(30, 31).hours, *hours(40, 90).hours])],
                layouts[name],
                labels=labels,
            )
    return story


def label(story: Story) -> dict[str, Any]:
    """Draw a label for some id, known or not, for all versions or one, now and then withdrawn or of an old time."""
    random = story.random
    version = None if random.random() < 0.7 else str(random.choice(["a", "b"]))
    value = None if random.random() < 0.1 else str(random.integers(0, 2))
    at = START + int(random.integers(0, 50)) * HOUR
    return {
        "prediction_id": f"id-{random.integers(0, 400)}", "version": version, "ground_truth": value, "timestamp": at,
    }  # fmt: skip


def look(shop: Shop, story: Story, labels: bool, name: str | None) -> None:
    """Read a window in the middle of the story, so that profiles of that moment are stored."""
    name = name or str(story.random.choice(["a", "b"]))
    first = int(story.random.integers(0, LENGTH - 1))
    with shop.database.reading() as session:
        version = session.get_one(VersionRow, shop.version_ids[name])
        shop.profiles.window(session, version, 1, hours(first, first + 1 + LENGTH // 2), labels=labels)


@pytest.mark.parametrize(("seed", "steps"), [(0, 25), pytest.param(1, 40, marks=pytest.mark.long)])
def test_profiles_are_what_the_raw_rows_say_whatever_came_when(tmp_path: Path, seed: int, steps: int) -> None:
    shop = Shop(tmp_path / "data")
    story = tell(shop, seed, steps)
    check_counts(shop, story)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 160))
def test_profiles_are_what_the_raw_rows_say_in_many_more_stories(tmp_path: Path, seed: int) -> None:
    shop = Shop(tmp_path / "data")
    check_counts(shop, tell(shop, seed, steps=120))


@pytest.mark.long
@pytest.mark.postgres
def test_profiles_are_what_the_raw_rows_say_on_postgresql_too(tmp_path: Path, postgres_url: str) -> None:
    shop = Shop(tmp_path / "data", postgres_url)
    check_counts(shop, tell(shop, 3))


def check_counts(shop: Shop, story: Story) -> None:
    """Compare the arrivals with the raw records: nothing is lost, nothing counts twice."""
    raw = pd.DataFrame(story.predictions)
    raw["version"] = raw["version"].fillna("a")
    counted = story.told()
    with shop.database.reading() as session:
        arrivals = session.scalars(select(ArrivalRow)).all()
        waiting = session.scalars(select(PendingTruthRow)).all()
    for name, version in shop.version_ids.items():
        mine = [row for row in arrivals if row.version_id == version and row.kind == "predictions"]
        expected = counted[counted["version"] == name].groupby("bucket").size().to_dict()
        assert {row.bucket: row.accepted for row in mine if row.accepted} == expected
        kept_out = sum(row.duplicates + row.conflicts for row in mine)
        assert kept_out == (raw["version"] == name).sum() - sum(expected.values())
        known = set(counted[counted["version"] == name]["prediction_id"])
        labelled = {row["prediction_id"] for row in story.labels if row["version"] in (None, name)}
        told = [row for row in arrivals if row.version_id == version and row.kind == "ground_truth"]
        assert sum(row.accepted for row in told) == len(known & labelled)
    known = set(zip(counted["prediction_id"], counted["version"], strict=True))
    for row in waiting:
        versions = [row.version] if row.version else list(shop.version_ids)
        assert not any((row.prediction_id, version) in known for version in versions)


def posted(shop: Shop, moments: list[int], start: int = 0) -> None:
    """Post and seal one prediction per moment, microseconds."""
    records = [
        {
            "prediction_id": f"p{start + i}", "version": None, "timestamp": at, "received_at": at,
            "features.age": float(i), "features.job": "clerk", "prediction": "1", "score": 0.5,
        }
        for i, at in enumerate(moments)
    ]  # fmt: skip
    shop.put("predictions", records)
    shop.seal()


def with_layout(shop: Shop, number: int = 1) -> None:
    example = pa.Table.from_pylist(
        [
            {"features.age": float(i), "features.job": "clerk", "prediction": "1", "score": 0.5, "ground_truth": "1"}
            for i in range(50)
        ]
    )
    shop.layout(COLUMNS, example, number=number)


def rows_of(shop: Shop, first: int, last: int, number: int = 1, *, labels: bool = False) -> int:
    with shop.database.reading() as session:
        version = session.get_one(VersionRow, shop.version_ids["a"])
        return shop.profiles.window(session, version, number, hours(first, last), labels=labels).rows


def outcomes_of(shop: Shop, first: int, last: int) -> list[float]:
    """Return the rows of each bucket that the outcomes are told by."""
    with shop.database.reading() as session:
        version = session.get_one(VersionRow, shop.version_ids["a"])
        found = shop.profiles.bucket_outcomes(session, version, 1, hours(first, last))
    assert found is not None
    return [float(rows) for rows in found.sum(axis=1)]


def test_outcomes_of_hours_are_counted_without_storing_profiles_of_hours(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    # Two rows in hour 0, one in each of the hours 1 to 23; the day is stored, its hours are not.
    posted(shop, [START, *(START + h * HOUR for h in range(24))])
    assert rows_of(shop, 0, 24, labels=True) == 25
    before = stored(shop)
    assert outcomes_of(shop, 0, 24) == [2.0, *[1.0] * 23]
    assert stored(shop) == before
    # An hour that is stored and one that is outdated by a late row.
    assert rows_of(shop, 3, 5, labels=True) == 2
    posted(shop, [START + 4 * HOUR + 1], start=100)
    assert outcomes_of(shop, 2, 6) == [1.0, 1.0, 2.0, 1.0]


def test_outcomes_of_more_than_a_week_are_told_by_day(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    # Three rows a day for nine days, none on the fifth; the last three hours are an unfinished day's.
    moments = [START + (24 * day + h) * HOUR for day in range(9) if day != 4 for h in (1, 2, 20)]
    posted(shop, moments)
    assert outcomes_of(shop, 0, 8 * 24) == [3.0] * 7
    assert rows_of(shop, 0, 8 * 24, labels=True) == 21
    assert outcomes_of(shop, 0, 8 * 24) == [3.0] * 7
    assert outcomes_of(shop, 2, 8 * 24) == [1.0, 1.0, *[3.0] * 6], "hours at the edges"


def test_a_late_row_is_seen_in_every_layout_and_in_the_day_it_belongs_to(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    with_layout(shop, number=2)
    posted(shop, [START + h * HOUR for h in range(24)])
    assert [rows_of(shop, 0, 24, number) for number in (1, 2)] == [24, 24]
    assert rows_of(shop, 3, 4) == 1
    posted(shop, [START + 3 * HOUR + 5], start=100)
    assert rows_of(shop, 3, 4) == 2
    assert [rows_of(shop, 0, 24, number) for number in (1, 2)] == [25, 25]
    with shop.database.reading() as session:
        assert session.scalars(select(DirtyRow)).all() == []


def test_rows_sealed_while_a_profile_is_built_leave_their_bucket_dirty(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    posted(shop, [START, START + HOUR])
    with shop.database.reading() as session:
        version = session.get_one(VersionRow, shop.version_ids["a"])
        session.scalars(select(ProfileRow)).all()
        posted(shop, [START + 7], start=100)  # after this session's state of the database
        assert shop.profiles.window(session, version, 1, hours(0, 2)).rows == 2
    assert rows_of(shop, 0, 2) == 3


def test_labels_rebuild_only_the_outcomes(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    posted(shop, [START + h * HOUR for h in range(24)])
    rows_of(shop, 0, 24, labels=True)
    with shop.database.reading() as session:
        before = session.scalars(select(ProfileRow.inputs)).all()
    record = {"prediction_id": "p5", "version": None, "ground_truth": "1", "timestamp": START, "received_at": START}
    shop.put("ground_truth", [record])
    shop.seal()
    with shop.database.reading() as session:
        assert [mark.part for mark in session.scalars(select(DirtyRow))] == ["outcomes"]
        version = session.get_one(VersionRow, shop.version_ids["a"])
        profile = shop.profiles.window(session, version, 1, hours(0, 24), labels=True)
        assert profile.columns["ground_truth"].count == 1
    with shop.database.reading() as session:
        assert session.scalars(select(ProfileRow.inputs)).all() == before
        assert session.scalars(select(DirtyRow)).all() == []


def test_a_window_inside_a_writing_session_is_stored_with_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    posted(shop, [START])
    with shop.database.writing() as session:
        version = session.get_one(VersionRow, shop.version_ids["a"])
        assert shop.profiles.window(session, version, 1, hours(0, 24)).rows == 1
    with shop.database.reading() as session:
        assert len(session.scalars(select(ProfileRow)).all()) == 1


def test_many_windows_cost_as_many_statements_as_one(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    posted(shop, [START + hour * HOUR for hour in range(40 * 24)])
    statements: list[str] = []

    def counted(asked: list[list[Span]]) -> int:
        statements.clear()
        with shop.database.reading() as session:
            version = session.get_one(VersionRow, shop.version_ids["a"])
            profiles = shop.profiles.windows(session, version, 1, asked)
        assert [profile.rows for profile in profiles] == [6] * len(asked)
        return len(statements)

    rows_of(shop, 0, 40 * 24)
    days = [[hours(24 * day + 3, 24 * day + 9)] for day in range(40)]
    counted(days)  # builds the hours
    event.listen(shop.database.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    assert counted(days) == counted(days[:1]) < 12


def test_a_window_of_part_of_an_hour_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    span = Span(hours(0, 1).start, hours(0, 1).end - timedelta(minutes=1))
    with shop.database.reading() as session:
        version = session.get_one(VersionRow, shop.version_ids["a"])
        with pytest.raises(ValueError, match="whole hour"):
            shop.profiles.window(session, version, 1, span)


def test_the_background_builds_closed_hours_and_merges_them_when_the_day_closes(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    shop.clock.at = from_microseconds(START + 10 * HOUR)
    posted(shop, [START + h * HOUR for h in range(10)])
    shop.profiles.refresh(seconds=PATIENCE)
    assert stored(shop) == {(1, h): 1 for h in range(9)}  # the hour from 9 on waits for its late records
    shop.clock.at = from_microseconds(START + 26 * HOUR)
    posted(shop, [START + h * HOUR for h in range(10, 24)], start=100)
    shop.profiles.refresh(seconds=PATIENCE)
    assert stored(shop)[24, 0] == 24
    shop.clock.at = from_microseconds(START + 40 * 24 * HOUR)
    shop.profiles.refresh(seconds=PATIENCE)
    assert stored(shop) == {(24, 0): 24}


def stored(shop: Shop) -> dict[tuple[int, int], int]:
    with shop.database.reading() as session:
        rows = session.scalars(select(ProfileRow)).all()
    return {(row.hours, row.bucket - START // HOUR): row.rows for row in rows}


def test_a_dirty_bucket_is_rebuilt_in_the_background_at_most_once_in_a_quarter_of_an_hour(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    shop.clock.at = from_microseconds(START + 10 * HOUR)
    posted(shop, [START])
    assert shop.profiles.refresh(seconds=PATIENCE) == 1
    posted(shop, [START + 1], start=1)
    assert shop.profiles.refresh(seconds=PATIENCE) == 0
    shop.clock.move(timedelta(minutes=16))
    assert shop.profiles.refresh(seconds=PATIENCE) == 1
    assert stored(shop)[1, 0] == 2


def test_the_watermark_follows_the_clock_or_the_events_of_an_open_replay(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    now = shop.clock.now()
    with shop.database.writing() as session:
        model = session.get_one(ModelRow, shop.model_id)
        assert profiles.watermark(session, model, shop.clock, shop.settings) == now - timedelta(hours=1)
        replay = ReplayRow(
            uid="1" * 32, model_id=model.id, starts_at=from_microseconds(START),
            ends_at=from_microseconds(START + 100 * HOUR), opened_at=now,
        )  # fmt: skip
        session.add(replay)
        session.flush()
        assert profiles.watermark(session, model, shop.clock, shop.settings) == from_microseconds(START)
    posted(shop, [START + 5 * HOUR + 7])
    with shop.database.writing() as session:
        model = session.get_one(ModelRow, shop.model_id)
        reached = profiles.watermark(session, model, shop.clock, shop.settings)
        assert reached == from_microseconds(START + 4 * HOUR + 7)
        session.scalars(select(ReplayRow)).one().closed_at = now
    with shop.database.reading() as session:
        assert profiles.watermark(session, model, shop.clock, shop.settings) == now - timedelta(hours=1)


def test_hours_of_history_are_profiled_together_and_counted_apart(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data")
    with_layout(shop)
    posted(shop, [START + h * HOUR for h in range(0, 300, 3)])
    assert [rows_of(shop, h, h + 1) for h in (0, 1, 3)] == [1, 0, 1]
    assert set(stored(shop)) == {(1, h) for h in range(0, 300, 3)}
    first = bucket_start(START // HOUR)
    with shop.database.reading() as session:
        counts = profiles.row_counts(session, shop.model_id, shop.version_ids["a"], hours(0, 7))
    assert {bucket_start(bucket) - first: rows for bucket, rows in counts.items()} == {
        timedelta(hours=h): 1 for h in (0, 3, 6)
    }


def test_disorder_repeats_and_lateness_leave_the_bytes_of_a_day_as_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    moments = START + np.sort(random.integers(0, 48 * HOUR, 1000))
    records = [
        {
            "prediction_id": f"p{i}",
            "version": "a",
            "timestamp": int(at),
            "received_at": int(at),
            "features.age": float(random.lognormal()),
            "features.job": str(random.choice(["clerk", "smith"])),
            "prediction": str(random.integers(0, 2)),
            "score": float(random.random()),
        }
        for i, at in enumerate(moments)
    ]
    orderly = Shop(tmp_path / "orderly")
    with_layout(orderly)
    orderly.put("predictions", records)
    orderly.seal()
    assert rows_of(orderly, 0, 48) == 1000
    wild = Shop(tmp_path / "wild")
    with_layout(wild)
    places = random.permutation(np.repeat(np.arange(1000), 3))
    late = set(random.choice(1000, 20, replace=False).tolist())
    for part in np.array_split(places, 6):
        wild.put("predictions", [records[i] for i in part if i not in late])
        wild.seal()
        first = int(random.integers(0, 40))
        rows_of(wild, first, first + 8)
        rows_of(wild, 0, 24)
    wild.put("predictions", [records[i] for i in sorted(late, reverse=True)])
    wild.seal()
    assert rows_of(wild, 0, 48) == 1000
    days = []
    for shop in (orderly, wild):
        with shop.database.reading() as session:
            rows = session.scalars(select(ProfileRow).where(ProfileRow.hours == 24).order_by(ProfileRow.bucket))
            days.append([row.inputs for row in rows])
    assert len(days[0]) == 2
    assert days[0] == days[1]
