"""The demonstration: a model trained on real data, 60 days of its predictions, and three shifts put in on purpose.

The rows are the RAND Health Insurance Experiment (20,190 person-years, 1974 to 1982), which statsmodels carries. A
gradient boosted classifier learns from a quarter of them to say who sees a doctor often (three visits a year or more).
A second part, held out and laid out over 28 days in order of time, is the baseline; the rest are the 60 days that are
replayed into the service, ending yesterday. The label of each prediction comes 2 to 12 days later. The service is given
the classifier too, so that every prediction can be explained.

What is injected, by day of the 60 (the first is day 1):

- days 28 to 31, a unit change: `incentive` arrives in cents instead of dollars; then somebody repairs it.
- days 40 to 44, a mix shift: people in fair or poor health are five times as frequent (an enrolment campaign).
- days 53 to 60, an outage: `chronic_conditions` is missing in a third of the rows, and still is at the end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from service import replay
from service.database import microseconds
from service.words import DAY, format_time

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

MODEL = "doctor-visits"
VERSION = "2026.1"
DAYS = 60
BASELINE_DAYS = 28
BASELINE_PER_DAY = 130
OFTEN = 3
"""Visits to a doctor in a year from which on somebody goes often."""
FRAME = "demonstration"
"""The tag of the model that names the last day, so that another start fills in the same rows."""
HEALTH = ("excellent", "good", "fair", "poor")
RANKS = {name: float(rank) for rank, name in enumerate(HEALTH)}
FEATURES = (
    "coinsurance",
    "deductible_plan",
    "incentive",
    "expenditure_limit",
    "physical_limitation",
    "chronic_conditions",
    "health",
)
EXPLAINED_DAYS = 7
"""So many last days are compared with the baseline by what the model heeds."""
HOURS = np.array([1, 1, 1, 1, 1, 1, 2, 4, 7, 10, 11, 10, 8, 8, 9, 9, 8, 6, 4, 3, 2, 2, 1, 1], dtype=float)
"""How the rows of a day spread over its hours."""


@dataclass(frozen=True)
class Injection:
    """A shift put in on purpose: what, and on which days of the 60."""

    first: int
    last: int
    feature: str
    what: str

    def days(self) -> range:
        """Return the days, counted from 1."""
        return range(self.first, self.last + 1)

    def sentence(self, begin: date) -> str:
        """Return it in words, with its dates."""
        start, end = begin + (self.first - 1) * DAY, begin + (self.last - 1) * DAY
        return f"{start:%d %b} to {end:%d %b} (days {self.first}-{self.last}): {self.what}"


UNITS = Injection(28, 31, "incentive", "unit change, incentive arrives in cents instead of dollars.")
MIX = Injection(40, 44, "health", "mix shift, people in fair or poor health are five times as frequent.")
OUTAGE = Injection(53, 60, "chronic_conditions", "outage, chronic_conditions is missing in a third of the rows.")
INJECTED = (UNITS, MIX, OUTAGE)


@dataclass(frozen=True)
class Story:
    """Everything that is sent: the held-out baseline, the days, and the labels with the time each becomes known."""

    baseline: pa.Table
    predictions: pa.Table
    labels: pa.Table
    begin: datetime
    end: datetime
    accuracy: float
    """Area under the ROC curve on the baseline, which the model has not seen."""
    note: str
    """What the page shows as injected."""
    classifier: bytes
    """As skops writes it."""

    def newest(self, count: int) -> Story:
        """Return the story as if its predictions began so many days before its end."""
        since = self.end - count * DAY
        kept = self.predictions.filter(pc.greater_equal(self.predictions["at"], since))
        known = pc.is_in(self.labels["prediction_id"], kept["prediction_id"])
        return replace(self, begin=since, predictions=kept, labels=self.labels.filter(known))


def note_of(first: date, accuracy: float) -> str:
    """Return where the rows are from and what was injected, in words."""
    listed = "\n".join(f"• {injected.sentence(first)}" for injected in INJECTED)
    return (
        "Real data: RAND Health Insurance Experiment. The classifier says who sees a doctor three times a year or "
        f"more; its area under the ROC curve on rows it has not seen is {accuracy:.2f}.\n"
        f"What was injected:\n{listed}"
    )


def rows() -> pd.DataFrame:
    """Return the data set in words: amounts in dollars, health as one category, the label as `often` or `rarely`."""
    import pandas as pd
    from statsmodels.datasets import randhie

    raw = randhie.load_pandas().data
    health = np.select([raw.hlthp == 1, raw.hlthf == 1, raw.hlthg == 1], HEALTH[:0:-1], HEALTH[0])
    return pd.DataFrame(
        {
            "coinsurance": np.expm1(raw.lncoins).round(0),
            "deductible_plan": raw.idp == 1,
            "incentive": np.where(raw.lpi > 0, np.exp(raw.lpi), 0.0).round(2),
            "expenditure_limit": np.where(raw.fmde > 0, np.exp(raw.fmde), 0.0).round(2),
            "physical_limitation": raw.physlm.astype(float).round(3),
            "chronic_conditions": raw.disea.astype(float).round(2),
            "health": health,
            "label": np.where(raw.mdvis >= OFTEN, "often", "rarely"),
        }
    )


def encoded(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the features as the classifier reads them; health by its rank."""
    features = frame[list(FEATURES)]
    return features.assign(health=features.health.map(RANKS)).astype(float).to_numpy()


def moments(first: datetime, counts: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.datetime64]:
    """Return a sorted time for each row: so many on each day, spread over its hours, the first and last hour included.

    A window counts only where the data span it, so the first day begins and the last day ends with a row.
    """
    day = np.repeat(np.arange(len(counts)), counts)
    hour = random.choice(24, size=len(day), p=HOURS / HOURS.sum())
    within = random.integers(0, 3_600_000_000, size=len(day))
    offsets = np.sort(((day * 24 + hour) * 3_600_000_000 + within).astype("timedelta64[us]"))
    offsets[0] = np.timedelta64(12, "m")
    offsets[-1] = np.timedelta64(24 * 60 * len(counts) - 9, "m")
    return np.datetime64(first.replace(tzinfo=None), "us") + offsets


def story(last_day: date) -> Story:
    """Return the demonstration whose last day this is; the same day gives the same rows, whenever it is asked for."""
    # Here: seconds that only a demonstration that is not filled in yet needs.
    import pandas as pd
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(1974)
    shuffled = rows().sample(frac=1.0, random_state=1974, ignore_index=True)
    end = datetime.combine(last_day + DAY, time(), UTC)
    begin = end - DAYS * DAY
    weekend = np.array([(begin + day * DAY).weekday() >= 5 for day in range(DAYS)])
    counts = np.where(weekend, 150, 205) + random.integers(-12, 13, size=DAYS)
    held, streamed = BASELINE_DAYS * BASELINE_PER_DAY, int(counts.sum())
    learnt = shuffled[held + streamed :]
    classifier = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.08, max_leaf_nodes=15, random_state=1974)
    classifier.fit(encoded(learnt), learnt.label)
    positive = list(classifier.classes_).index("often")

    def answered(frame: pd.DataFrame, prefix: str, times: NDArray[np.datetime64]) -> pd.DataFrame:
        score = classifier.predict_proba(encoded(frame))[:, positive].round(4)
        return frame.assign(
            prediction_id=[f"{prefix}-{number:05d}" for number in range(len(frame))],
            at=pd.DatetimeIndex(times, tz="UTC"),
            score=score,
            prediction=np.where(score >= 0.5, "often", "rarely"),
        )

    even = np.full(BASELINE_DAYS, BASELINE_PER_DAY)
    baseline = answered(
        shuffled[:held].reset_index(drop=True), "held", moments(begin - BASELINE_DAYS * DAY, even, random)
    )
    plain = shuffled[held : held + streamed].reset_index(drop=True)
    stream = answered(injected(plain, counts, random), f"visit-{last_day:%y%m%d}", moments(begin, counts, random))
    delay = pd.to_timedelta(random.uniform(2, 12, size=streamed), unit="D")
    labels = pd.DataFrame(
        {
            "prediction_id": stream.prediction_id,
            "ground_truth": stream.label,
            "timestamp": (stream["at"] + delay).dt.floor("s"),
        }
    )
    accuracy = float(roc_auc_score(baseline.label == "often", baseline.score))
    return Story(
        baseline=pa.Table.from_pandas(baseline, preserve_index=False),
        predictions=pa.Table.from_pandas(stream.drop(columns="label"), preserve_index=False),
        labels=pa.Table.from_pandas(labels[labels.timestamp < end].sort_values("timestamp"), preserve_index=False),
        begin=begin,
        end=end,
        accuracy=accuracy,
        note=note_of(begin.date(), accuracy),
        classifier=skops.io.dumps(classifier),
    )


def injected(frame: pd.DataFrame, counts: NDArray[np.int64], random: np.random.Generator) -> pd.DataFrame:
    """Return the rows with the shifts put in; the model answers what it is sent, so its scores move with them."""
    frame = frame.copy()
    day = np.repeat(np.arange(1, len(counts) + 1), counts)
    mixed = np.flatnonzero(np.isin(day, MIX.days()))
    weight = np.where(frame.health.isin(["fair", "poor"]), 7.0, 1.0)
    drawn = random.choice(len(frame), size=len(mixed), p=weight / weight.sum())
    frame.iloc[mixed] = frame.iloc[drawn].to_numpy()
    frame = frame.infer_objects()
    frame.loc[np.isin(day, UNITS.days()), "incentive"] *= 100
    lost = np.isin(day, OUTAGE.days()) & (random.random(len(frame)) < 1 / 3)
    frame.loc[lost, "chronic_conditions"] = np.nan
    return frame


def plan(folder: Path) -> replay.Plan:
    """Return how the files of a story are replayed."""
    return replay.Plan(
        file=folder / "predictions.parquet",
        model=MODEL,
        version=VERSION,
        roles=replay.Roles(time="at", identity="prediction_id", prediction="prediction", score="score"),
        task="binary",
        baseline=folder / "held-out.parquet",
        window="1d",
    )


def fill(client: replay.Client, yesterday: date, console: Console, count: int = DAYS) -> bool:
    """Fill a service with so many days of the demonstration through HTTP; return whether anything had to be sent.

    A model that is complete is left alone; one whose filling was interrupted is filled with the rows of the day it was
    begun, of which those that arrived are recognised by their ids.
    """
    base = f"/v1/models/{MODEL}"
    answer = client.send("GET", base, expect=(404,))
    if answer.is_success:
        last_day = date.fromisoformat(answer.json()["tags"].get(FRAME, yesterday.isoformat()))
        replays = client.send("GET", f"{base}/replays").json()["items"]
        if any(item.get("closed_at") is not None for item in replays):
            return False
    else:
        last_day = yesterday
    told = story(last_day).newest(count)
    if not answer.is_success:
        client.send("POST", "/v1/models", json=model_document(told, last_day))
    with tempfile.TemporaryDirectory(prefix="plumbline-demo-") as name:
        folder = Path(name)
        pa.parquet.write_table(told.baseline, folder / "held-out.parquet")
        pa.parquet.write_table(told.predictions, folder / "predictions.parquet")
        send(client, plan(folder), told, console)
    explain(client, told, console)
    return True


def explain(client: replay.Client, told: Story, console: Console) -> None:
    """Hand over the classifier, and ask what it heeded in the last days; where it cannot be loaded, say why."""
    base, manifest = f"/v1/models/{MODEL}", {"columns": FEATURES, "encodings": {"health": RANKS}}
    span = {"from": format_time(told.end - EXPLAINED_DAYS * DAY), "to": format_time(told.end)}
    console.print("Explaining what the model heeds …", markup=False)
    try:
        client.send(
            "PUT",
            f"{base}/versions/{VERSION}/artifact",
            params={"manifest": json.dumps(manifest)},
            content=told.classifier,
        )
        client.finished(client.send("GET", f"{base}/explanations/global", params=span))
    except replay.Refused as refused:
        console.print(f"The model is not explained: {refused}", markup=False)


def model_document(told: Story, last_day: date) -> dict[str, Any]:
    """Return the model as it is declared to the service."""
    return {
        "name": MODEL,
        "task": "binary",
        "description": "Who will see a doctor often? A demonstration on real data, with shifts put in on purpose.",
        "note": told.note,
        "classes": ["often", "rarely"],
        "positive_class": "often",
        "tags": {FRAME: last_day.isoformat(), "owner": "care-planning"},
        "alarm_budget": {"per": "30d", "at_most": 1},
    }


def send(client: replay.Client, how: replay.Plan, told: Story, console: Console) -> replay.Done:
    """Send the days one after another, each with the labels that had become known by its end."""
    source = replay.Source(how.file)
    known = replay.extent(source, how.roles.time)
    features = [name for name in source.names if name not in how.roles.taken(source.names)]
    done = replay.Done(model=MODEL, link=f"{client.url}/models/{MODEL}")
    replay.prepare(how, client, source, "label", features, known, done)
    base = f"/v1/models/{MODEL}"
    body = {"from": format_time(told.begin), "to": format_time(told.end), "webhooks": []}
    opened = replay.opened(client, base, body)
    records = replay.Records(source, how, None, features)
    whole = pa.concat_tables(replay.in_time_order(records.batches(), known))
    with replay.bar(console) as progress:
        task = progress.add_task("the days", total=whole.num_rows, moment="")
        for moment, predictions, labels in days(told, whole):
            replay.post(client, f"{base}/predictions", predictions, done)
            if labels.num_rows:
                replay.post_labels(client, f"{base}/ground-truth", labels, done)
            progress.update(task, advance=predictions.num_rows, moment=f"{moment:%Y-%m-%d}")
        progress.update(task, moment="judging their windows")
        client.finished(client.send("DELETE", f"{base}/replays/{opened}"))
    return done


def days(told: Story, whole: pa.Table) -> Iterator[tuple[datetime, pa.Table, pa.Table]]:
    """Yield each day: its start, its predictions, and the labels that became known on it."""
    moment = told.begin
    while moment < told.end:
        yield moment, _between(whole, moment), _between(told.labels, moment)
        moment += DAY


def _between(table: pa.Table, moment: datetime) -> pa.Table:
    times = replay.micros(table["timestamp"].combine_chunks(), "timestamp")
    first, last = (microseconds(edge) for edge in (moment, moment + timedelta(days=1)))
    low, high = np.searchsorted(times, [first, last])
    return table.slice(low, high - low)
