"""The client behind `plumbline replay`: a file of predictions, in order of time, into a running service."""

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import httpx2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.database import EPOCH, from_microseconds
from service.words import HOUR, UNFINISHED, format_time, text_of

ROWS = 20_000
"""Rows in one request."""
SORTED_ROWS = 1_000_000
"""Rows that are sorted in memory at once; a larger file out of order goes through a spool on disk."""
SAMPLE = 100_000
"""Rows that the task and the classes are inferred from."""
MOMENT = pa.timestamp("us", "UTC")
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
ATTEMPTS = 10
LONGEST_WAIT = 30.0


class MakesNoSense(ValueError):  # noqa: N818 - read as a sentence, like the problems
    """The file and the options do not fit together."""


class Refused(RuntimeError):  # noqa: N818 - read as a sentence, like the problems
    """The service cannot be reached, or does not do what it was asked."""


# --- what is asked for ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which columns play a role; all others are features, but for those ignored."""

    time: str
    identity: str | None = None
    prediction: str | None = None
    score: str | None = None
    scores: str | None = None
    ignored: tuple[str, ...] = ()

    def score_columns(self, names: list[str]) -> dict[str, str]:
        """Return the columns with one score per class, by class: `scores` is a prefix with `*`, or a comma list."""
        if not self.scores:
            return {}
        if self.scores.endswith("*"):
            prefix = self.scores[:-1]
            return {name.removeprefix(prefix): name for name in names if name.startswith(prefix) and name != prefix}
        return {name: name for name in (part.strip() for part in self.scores.split(",")) if name in names}

    def taken(self, names: list[str]) -> set[str]:
        """Return the names that are no features."""
        single = {self.time, self.identity, self.prediction, self.score, *self.ignored}
        return {name for name in single if name} | set(self.score_columns(names).values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A replay: what is sent where, under which names, how fast."""

    file: Path
    model: str
    version: str
    roles: Roles
    task: str | None = None
    baseline: Path | None = None
    ground_truth: str | None = None
    window: str = "1d"
    webhooks: tuple[str, ...] = ()
    speed: float | None = None
    """Times faster than it happened; none: as fast as it goes."""


@dataclass(kw_only=True)
class Done:
    """What became of a replay."""

    model: str
    link: str
    rows: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    labels: int = 0
    labels_repeated: int = 0
    without_time: int = 0
    without_label: int = 0
    alerts: int = 0
    made: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def document(self) -> dict[str, object]:
        """Return it for machines."""
        return asdict(self)

    def sentence(self) -> str:
        """Return it for people."""
        parts = [f"{self.accepted:,} predictions accepted", f"{self.duplicates:,} known already"]
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        if self.labels or self.labels_repeated:
            parts.append(f"{self.labels:,} labels accepted, {self.labels_repeated:,} known already")
        if self.without_time:
            parts.append(f"{self.without_time:,} rows without a time left out")
        made = f" Made: {', '.join(self.made)}." if self.made else ""
        alerts = "1 alert" if self.alerts == 1 else f"{self.alerts} alerts"
        return f"{'; '.join(parts)}; {alerts} in {self.seconds:.1f} s.{made} See {self.link}"


def speed_of(text: str) -> float | None:
    """Read `max` as none, and a positive number as so many times faster than it happened."""
    if text == "max":
        return None
    with suppress(ValueError):
        if 0 < (speed := float(text)) < float("inf"):
            return speed
    raise MakesNoSense(f"--speed is max or a positive number, not {text!r}")


# --- the file ---------------------------------------------------------------------------------------------------------


class Source:
    """A CSV or Parquet file of any size, read in batches."""

    def __init__(self, path: Path, texts: tuple[str | None, ...] = ()) -> None:
        """Open the file; the columns in `texts` are not guessed at where the format has no types."""
        self.path = path
        try:
            self._dataset = self._open(path, {name for name in texts if name})
        except (pa.ArrowException, OSError) as error:
            raise MakesNoSense(f"{path} cannot be read: {first_line(error)}") from None
        self.names: list[str] = list(self._dataset.schema.names)
        if len(set(self.names)) < len(self.names):
            raise MakesNoSense(f"{path} names a column twice")

    @staticmethod
    def _open(path: Path, texts: set[str]) -> Any:
        if path.suffix.lower() not in (".csv", ".gz", ".tsv", ".txt"):
            return pyarrow.dataset.dataset(path, format="parquet")
        parse = pyarrow.csv.ParseOptions(delimiter="\t" if ".tsv" in path.suffixes else ",", newlines_in_values=True)
        guessed = pyarrow.dataset.dataset(path, format=pyarrow.dataset.CsvFileFormat(parse_options=parse)).schema
        # A column of whole numbers may hold fractions further down, and an empty one may hold text.
        types = {
            item.name: pa.string() if item.name in texts or pa.types.is_null(item.type) else pa.float64()
            for item in guessed
            if item.name in texts or pa.types.is_null(item.type) or pa.types.is_integer(item.type)
        }
        convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
        made = pyarrow.dataset.CsvFileFormat(parse_options=parse, convert_options=convert)
        return pyarrow.dataset.dataset(path, format=made)

    def need(self, option: str, name: str | None) -> None:
        """Refuse a column that the file does not have."""
        if name and name not in self.names:
            raise MakesNoSense(f"{option}: {self.path} has no column {name!r}; it has {', '.join(self.names)}")

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the order of the file."""
        try:
            yield from self._dataset.scanner(columns=columns, batch_size=65_536, use_threads=True).to_batches()
        except (pa.ArrowException, OSError) as error:
            raise MakesNoSense(f"{self.path} cannot be read: {first_line(error)}") from None

    def head(self, columns: list[str], rows: int) -> pa.Table:
        """Return the first rows."""
        try:
            return self._dataset.head(rows, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise MakesNoSense(f"{self.path} cannot be read: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, as the end of a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def moments(column: pa.Array, name: str) -> pa.Array:
    """Return a column as UTC times of whole microseconds; times without zone are taken as UTC."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        if pa.types.is_timestamp(column.type):
            return pc.cast(column, pa.timestamp("us", column.type.tz), safe=False).cast(MOMENT)
        if pa.types.is_date(column.type):
            return column.cast(pa.timestamp("us")).cast(MOMENT)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
            try:
                return column.cast(pa.timestamp("us")).cast(MOMENT)
            except pa.ArrowInvalid:
                return column.cast(MOMENT)
    except pa.ArrowInvalid as error:
        raise MakesNoSense(f"column {name!r} holds something that is not a time: {first_line(error)}") from None
    raise MakesNoSense(f"column {name!r} holds {column.type}, not times")


def micros(column: pa.Array, name: str) -> NDArray[np.int64]:
    """Return times as microseconds since 1970; the smallest integer where there is none."""
    whole = pc.fill_null(moments(column, name).cast(pa.int64()), np.iinfo(np.int64).min)
    return np.asarray(whole.to_numpy(zero_copy_only=False), dtype=np.int64)


@dataclass(frozen=True)
class Extent:
    """When the rows of a file happened, and whether they stand in that order."""

    rows: int
    without_time: int
    first: datetime
    last: datetime
    in_order: bool
    cuts: NDArray[np.int64]
    """Times that part the rows into portions small enough to sort."""


def extent(source: Source, time_column: str) -> Extent:
    """Read the time column once."""
    parts = [micros(batch.column(0), time_column) for batch in source.batches([time_column])]
    times = np.concatenate(parts) if parts else np.empty(0, np.int64)
    known = times[times > np.iinfo(np.int64).min]
    if not len(known):
        raise MakesNoSense(f"{source.path} holds no row with a time in {time_column!r}")
    portions = -(-len(known) // SORTED_ROWS)
    shares = np.arange(1, portions) / portions
    cuts = np.unique(np.quantile(known, shares, method="lower")) if portions > 1 else np.empty(0)
    return Extent(
        rows=len(known),
        without_time=len(times) - len(known),
        first=from_microseconds(int(known.min())),
        last=from_microseconds(int(known.max())),
        in_order=bool((np.diff(known) >= 0).all()),
        cuts=cuts.astype(np.int64),
    )


def in_time_order(batches: Iterator[pa.RecordBatch], known: Extent) -> Iterator[pa.Table]:
    """Yield tables whose rows follow each other in time (column `timestamp`), whatever the order of the batches.

    Rows of equal time keep the order of the file. Out of order and too large for memory: each batch is parted by time
    into files of a spool, which are then sorted one after another.
    """
    if known.in_order:
        for batch in batches:
            yield pa.Table.from_batches([batch])
        return
    if not len(known.cuts):
        whole = pa.Table.from_batches(list(batches))
        yield whole.take(pc.sort_indices(whole["timestamp"]))
        return
    with tempfile.TemporaryDirectory(prefix="plumbline-replay-") as folder:
        paths = [Path(folder) / f"{number}.arrow" for number in range(len(known.cuts) + 1)]
        sinks: dict[int, Any] = {}
        for batch in batches:
            portions = np.searchsorted(known.cuts, micros(batch.column("timestamp"), "timestamp"), side="right")
            for number in np.unique(portions):
                if number not in sinks:
                    sinks[number] = pa.ipc.new_file(str(paths[number]), batch.schema)
                sinks[number].write_batch(batch.filter(pa.array(portions == number)))
        for sink in sinks.values():
            sink.close()
        for number in sorted(sinks):
            with pa.memory_map(str(paths[number])) as stored:
                portion = pa.ipc.open_file(stored).read_all()
                yield portion.take(pc.sort_indices(portion["timestamp"]))


def plain(column: pa.Array) -> pa.Array:
    """Return a column in a type that the interface knows: float64, string, boolean or a UTC time."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return column.cast(pa.float64())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return moments(column, "")
    return column


def texts(column: pa.Array) -> pa.Array:
    """Return a column of ids or labels in the one spelling of text."""
    column = plain(column)
    if pa.types.is_floating(column.type):
        spelled = [None if value is None or value != value else text_of(value) for value in column.to_pylist()]
        return pa.array(spelled, pa.string())
    return column.cast(pa.string())


class Records:
    """The rows of a file under the names of the interface."""

    def __init__(self, source: Source, plan: Plan, label: str | None, features: list[str]) -> None:
        self._source = source
        self._plan = plan
        self._label = label
        self._features = features
        self.columns = [name for name in source.names if name in self._wanted()]

    def _wanted(self) -> set[str]:
        roles = self._plan.roles
        single = {roles.time, roles.identity, roles.prediction, roles.score, self._label}
        return {name for name in single if name} | set(self._features) | set(self._scores().values())

    def _scores(self) -> dict[str, str]:
        return self._plan.roles.score_columns(self._source.names)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the records in the order of the file, those without a time left out."""
        position = 0
        for batch in self._source.batches(self.columns):
            yield self._record(batch, position)
            position += batch.num_rows

    def _record(self, batch: pa.RecordBatch, position: int) -> pa.RecordBatch:
        roles = self._plan.roles
        rows = batch.num_rows
        made: dict[str, pa.Array] = {"timestamp": moments(batch.column(roles.time), roles.time)}
        if roles.identity:
            made["prediction_id"] = texts(batch.column(roles.identity))
        else:
            # The same file gives the same ids, so that sending it twice counts once.
            stem = self._source.path.stem
            made["prediction_id"] = pa.array([f"{stem}-{position + row}" for row in range(rows)], pa.string())
        made["version"] = pa.array([self._plan.version] * rows, pa.string())
        if roles.prediction:
            made["prediction"] = plain(batch.column(roles.prediction))
        if roles.score:
            made["score"] = plain(batch.column(roles.score)).cast(pa.float64())
        for name, column in self._scores().items():
            made[f"scores.{name}"] = plain(batch.column(column)).cast(pa.float64())
        for name in self._features:
            made[f"features.{name}"] = plain(batch.column(name))
        if self._label:
            made["ground_truth"] = plain(batch.column(self._label))
        record = pa.RecordBatch.from_pydict(made)
        return record.filter(pc.is_valid(record.column("timestamp")))


class Labels:
    """Ground truth from a file of its own, found by prediction id."""

    def __init__(self, path: Path, identity: str, beside: list[str]) -> None:
        """Read the file; the label is its only column that is neither the id nor in the file of predictions."""
        source = Source(path, (identity,))
        source.need("--id", identity)
        candidates = [name for name in source.names if name != identity and name not in beside]
        if len(candidates) != 1:
            raise MakesNoSense(
                f"--ground-truth {path}: one column beside {identity!r} should hold the label, "
                f"found {', '.join(candidates) or 'none'}"
            )
        self.column = candidates[0]
        table = pa.Table.from_batches(list(source.batches([identity, self.column])))
        ids = texts(table[identity])
        self._values = plain(table[self.column])
        self._known = self._values.is_valid().to_numpy(zero_copy_only=False)
        self._index = pd.Index(ids.to_pandas())
        if not self._index.is_unique:
            raise MakesNoSense(f"--ground-truth {path}: an id stands in it twice")

    def of(self, ids: pa.Array) -> pa.Table:
        """Return the labels of those ids that have one."""
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        found = self._index.get_indexer(pd.Index(ids.to_pandas()))
        has = found >= 0
        has[has] = self._known[found[has]]
        return pa.table({
            "prediction_id": ids.filter(pa.array(has)),
            "ground_truth": self._values.take(pa.array(found[has])),
        })  # fmt: skip


# --- the service ------------------------------------------------------------------------------------------------------


class Client:
    """Requests to a service; what can be asked again is asked again when it has too much to do or is away."""

    def __init__(self, url: str, key: str, pause: Callable[[float], None] = time.sleep) -> None:
        self.url = url.rstrip("/")
        self._pause = pause
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.use(None)

    def use(self, transport: httpx2.BaseTransport | None) -> None:
        """Send by another transport than the network."""
        try:
            self._http = httpx2.Client(
                base_url=self.url,
                headers=self._headers,
                timeout=httpx2.Timeout(300, connect=10),
                transport=transport,
                verify=not self.url.startswith("http:"),  # reads the system's certificates only where they are needed
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise MakesNoSense(f"--url {self.url!r}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def send(self, method: str, path: str, *, expect: tuple[int, ...] = (), **options: Any) -> httpx2.Response:
        """Return the answer to a request, a 2xx or one of the statuses expected; anything else is `Refused`."""
        headers = dict(options.pop("headers", {}))
        if method == "POST":
            headers["Idempotency-Key"] = uuid.uuid4().hex
        content = options.pop("content", None)
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            if content is not None:
                options["content"] = content() if callable(content) else content
            try:
                answer = self._http.request(method, path, headers=headers, **options)
            except httpx2.TransportError as error:
                if last or (isinstance(error, httpx2.ConnectError) and attempt >= 3):
                    raise Refused(f"{self.url} cannot be reached: {first_line(error)}") from None
                self._pause(self._delay(attempt, None))
                continue
            if answer.status_code in (429, 503) and not last:
                self._pause(self._delay(attempt, answer.headers.get("retry-after")))
                continue
            if answer.is_success or answer.status_code in expect:
                return answer
            raise Refused(f"{method} {path} was answered {answer.status_code}: {why(answer)}")
        raise Refused(f"{method} {path} was not answered")

    @staticmethod
    def _delay(attempt: int, retry_after: str | None) -> float:
        if retry_after and retry_after.isdigit():
            return min(float(retry_after), LONGEST_WAIT)
        return min(0.25 * 2.0**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries

    def finished(self, answer: httpx2.Response) -> Mapping[str, Any]:
        """Return what a request led to, waiting for its job where it was answered 202."""
        if answer.status_code == httpx2.codes.NO_CONTENT or not answer.content:
            return {}
        body: dict[str, Any] = answer.json()
        while answer.status_code == httpx2.codes.ACCEPTED or body.get("state") in UNFINISHED:
            where = answer.headers.get("location") or (f"/v1/jobs/{body['id']}" if "id" in body else None)
            if where is None:
                return body
            self._pause(0.2)
            following = self.send("GET", where.removeprefix(self.url))
            body = following.json()
            if body.get("state") not in UNFINISHED:
                if body.get("state") in ("failed", "cancelled"):
                    raise Refused(f"the service could not finish: {body.get('error') or body['state']}")
                return body
        return body


def why(answer: httpx2.Response) -> str:
    """Return what a refusal says, in one line."""
    try:
        document = answer.json()
    except ValueError:
        return answer.text[:200]
    if not isinstance(document, dict):
        return answer.text[:200]
    parts = [str(document.get("detail") or document.get("title") or answer.text[:200])]
    parts += [f"{fault.get('pointer')}: {fault.get('detail')}" for fault in (document.get("errors") or [])[:3]]
    parts += [f"{fault.get('code')}: {fault.get('detail')}" for fault in (document.get("rejected") or [])[:3]]
    return "; ".join(dict.fromkeys(part for part in parts if part))


def replay(plan: Plan, client: Client, console: Console) -> Done:
    """Make what is missing, open the replay, send every row and label in order of time, close it, and say what became.

    Sending the same file again changes nothing: ids are known already. A replay that was interrupted is gone on with.
    """
    started = time.monotonic()
    roles = plan.roles
    source = Source(plan.file, (roles.identity, roles.time))
    for option, name in (("--time", roles.time), ("--id", roles.identity), ("--prediction", roles.prediction)):
        source.need(option, name)
    source.need("--score", roles.score)
    if roles.scores and not roles.score_columns(source.names):
        raise MakesNoSense(f"--scores: {plan.file} has no column {roles.scores}; it has {', '.join(source.names)}")
    labels, label = labels_of(plan, source)
    known = extent(source, roles.time)
    features = [name for name in source.names if name not in roles.taken(source.names) | {label}]
    base = f"/v1/models/{quote(plan.model, safe='')}"
    done = Done(model=plan.model, link=f"{client.url}/models/{quote(plan.model, safe='')}/drift")
    done.rows, done.without_time = known.rows, known.without_time
    inside_label = label if labels is None else None
    prepare(plan, client, source, labels.column if labels else label, features, known, done)
    replaying = opened(client, base, opening(plan, known))
    records = Records(source, plan, inside_label, features)
    with bar(console) as progress:
        task = progress.add_task(plan.model, total=known.rows, moment="")
        for part in portions(in_time_order(records.batches(), known), plan.speed):
            post(client, f"{base}/predictions", part, done)
            if labels is not None:
                found = labels.of(part["prediction_id"])
                done.without_label += part.num_rows - found.num_rows
                if found.num_rows:
                    post_labels(client, f"{base}/ground-truth", found, done)
            newest = from_microseconds(part["timestamp"][-1].value)
            progress.update(task, advance=part.num_rows, moment=f"{newest:%Y-%m-%d %H:%M}")
        progress.update(task, moment="judging what is due")
        client.finished(client.send("DELETE", f"{base}/replays/{replaying}"))
    done.alerts = len(client.send("GET", "/v1/alerts", params={"model": plan.model}).json()["items"])
    done.seconds = round(time.monotonic() - started, 2)
    return done


def bar(console: Console) -> Progress:
    """Return a progress bar that names the moment reached; silent where nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[moment]}"),
        console=console,
        disable=not console.is_terminal,
    )


def labels_of(plan: Plan, source: Source) -> tuple[Labels | None, str | None]:
    """Return the labels of a file of their own, or the name of the column that holds them; neither without option."""
    if plan.ground_truth is None:
        return None, None
    if plan.ground_truth in source.names:
        return None, plan.ground_truth
    path = Path(plan.ground_truth)
    if not path.is_file():
        raise MakesNoSense(f"--ground-truth: {plan.ground_truth!r} is neither a file nor a column of {plan.file}")
    if plan.roles.identity is None:
        raise MakesNoSense("--ground-truth FILE needs --id, by which labels are found")
    return Labels(path, plan.roles.identity, source.names), None


def portions(tables: Iterator[pa.Table], speed: float | None) -> Iterator[pa.Table]:
    """Yield the rows in requests of a fitting size; with a speed, each not before its time has come."""
    begun = time.monotonic()
    first: int | None = None
    for table in tables:
        position = 0
        while position < table.num_rows:
            part = table.slice(position, ROWS).combine_chunks()
            if speed is not None:
                times = micros(part["timestamp"].combine_chunks(), "timestamp")
                first = int(times[0]) if first is None else first
                due = (int(times[0]) - first) / 1e6 / speed
                time.sleep(max(0.0, due - (time.monotonic() - begun)))
                reached = first + (time.monotonic() - begun + 0.5) * speed * 1e6
                part = part.slice(0, max(1, int(np.searchsorted(times, reached, side="right"))))
            position += part.num_rows
            yield part


def streamed(table: pa.Table) -> bytes:
    """Return a table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def post(client: Client, path: str, table: pa.Table, done: Done) -> None:
    """Send predictions and count what became of them."""
    body = client.send("POST", path, content=streamed(table), headers={"Content-Type": ARROW}).json()
    done.accepted += body["accepted"]
    done.duplicates += body["duplicates"]
    done.rejected += body["rejected_count"]


def post_labels(client: Client, path: str, table: pa.Table, done: Done) -> None:
    """Send labels and count what became of them."""
    body = client.send("POST", path, content=streamed(table), headers={"Content-Type": ARROW}).json()
    done.labels += body["accepted"]
    done.labels_repeated += body["duplicates"]


def opening(plan: Plan, known: Extent) -> dict[str, Any]:
    """Return the replay of the file's whole hours, as it is asked for."""
    start = EPOCH + (known.first - EPOCH) // HOUR * HOUR
    end = EPOCH + ((known.last - EPOCH) // HOUR + 1) * HOUR
    return {"from": format_time(start), "to": format_time(end), "webhooks": list(plan.webhooks)}


def opened(client: Client, base: str, body: dict[str, Any]) -> str:
    """Open a replay, or go on with one that is open; return its id."""
    answer = client.send("POST", f"{base}/replays", json=body, expect=(409,))
    if answer.status_code == httpx2.codes.CONFLICT:
        for item in client.send("GET", f"{base}/replays").json()["items"]:
            if item.get("closed_at") is None:
                return str(item["id"])
        raise Refused(f"POST {base}/replays was answered 409: {why(answer)}")
    return str(answer.json()["id"])


# --- what is made where it is missing ---------------------------------------------------------------------------------


def prepare(
    plan: Plan, client: Client, source: Source, label: str | None, features: list[str], known: Extent, done: Done
) -> None:
    """Make the model, its version, the baseline and the default monitors where they are missing."""
    base = f"/v1/models/{quote(plan.model, safe='')}"
    example = source
    if plan.baseline is not None:
        example = Source(plan.baseline, (plan.roles.identity, plan.roles.time))
    if client.send("GET", base, expect=(404,)).status_code == httpx2.codes.NOT_FOUND:
        client.send("POST", "/v1/models", json={"name": plan.model, **inferred(plan, example, label)})
        done.made.append(f"model {plan.model}")
    version = f"{base}/versions/{quote(plan.version, safe='')}"
    if client.send("GET", version, expect=(404,)).status_code == httpx2.codes.NOT_FOUND:
        client.send("POST", f"{base}/versions", json={"version": plan.version})
        done.made.append(f"version {plan.version}")
    if plan.baseline is not None:
        name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in plan.baseline.stem)
        name = (name.lstrip("._-") or "baseline")[:128]
        if client.send("GET", f"{base}/baselines/{name}", expect=(404,)).status_code == httpx2.codes.NOT_FOUND:
            upload(plan, client, example, name, label, features)
            done.made.append(f"baseline {name}")
    if not client.send("GET", f"{base}/monitors").json()["items"]:
        body = {"window": plan.window, "start": format_time(known.first)}
        made = client.send("POST", f"{base}/monitors/defaults", json=body).json()
        done.made.append(f"monitors {', '.join(item['name'] for item in made['items'])}")


def inferred(plan: Plan, source: Source, label: str | None) -> dict[str, Any]:
    """Return the task, the classes and the positive class that the first rows show, as members of a model."""
    roles = plan.roles
    per_class = roles.score_columns(source.names)
    wanted = [name for name in (roles.prediction, label, roles.score) if name and name in source.names]
    sample = source.head(wanted, SAMPLE)
    spoken = [name for name in (roles.prediction, label) if name and name in source.names]
    values = sorted({text for name in spoken for text in texts(sample[name]).to_pylist() if text is not None})
    task = plan.task or _task(roles, per_class, sample, spoken, values)
    members: dict[str, Any] = {"task": task}
    if task in ("binary", "multiclass") and 2 <= len(classes := sorted(set(per_class) or values)) <= 1000:
        members["classes"] = classes
        if task == "binary" and len(classes) == 2:
            members["positive_class"] = _positive(sample, roles, spoken, classes)
    return members


def _task(roles: Roles, per_class: dict[str, str], sample: pa.Table, spoken: list[str], values: list[str]) -> str:
    if per_class:
        return "multiclass"
    if roles.score:
        return "binary"
    if not spoken:
        raise MakesNoSense("--task is needed where neither --prediction nor --score is given")
    kind = plain(sample[spoken[0]]).type
    if pa.types.is_floating(kind) and any(not text.lstrip("-").isdigit() for text in values):
        return "regression"
    if len(values) <= 2:
        return "binary"
    return "regression" if not pa.types.is_string(kind) and len(values) > 20 else "multiclass"


def _positive(sample: pa.Table, roles: Roles, spoken: list[str], classes: list[str]) -> str:
    """Return the class that goes with high scores, or the later one where there is no score to tell."""
    if roles.score in sample.column_names and spoken:
        said = np.asarray(texts(sample[spoken[0]]).to_pylist(), dtype=object)
        scores = np.asarray(plain(sample[roles.score]).cast(pa.float64()).to_numpy(zero_copy_only=False))
        means = {name: np.nanmean(scores[said == name]) for name in classes if (said == name).any()}
        if means:
            return max(means, key=lambda name: float(means[name]))
    return classes[-1]


def upload(plan: Plan, client: Client, source: Source, name: str, label: str | None, features: list[str]) -> None:
    """Send the baseline with the columns that the stream has too, as Parquet with typed times."""
    roles = plan.roles
    held = [column for column in features if column in source.names]
    if not held:
        raise MakesNoSense(f"--baseline: {source.path} has none of the features of {plan.file}")
    single = {
        "timestamp": roles.time,
        "prediction_id": roles.identity,
        "prediction": roles.prediction,
        "score": roles.score,
        "ground_truth": label,
    }
    parameters = {role: column for role, column in single.items() if column and column in source.names}
    columns = [*parameters.values(), *roles.score_columns(source.names).values(), *held]
    if roles.scores:
        parameters["scores"] = roles.scores
    with tempfile.TemporaryFile(prefix="plumbline-baseline-") as spool:
        writer: Any = None
        for batch in source.batches(columns):
            made = {
                column: moments(batch.column(column), column) if column == roles.time else plain(batch.column(column))
                for column in columns
            }
            table = pa.table(made)
            writer = writer or pyarrow.parquet.ParquetWriter(spool, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is None:
            raise MakesNoSense(f"--baseline: {source.path} has no rows")
        writer.close()
        size = spool.tell()
        answer = client.send(
            "POST",
            f"/v1/models/{quote(plan.model, safe='')}/baselines",
            params={"name": name, "version": plan.version, **parameters},
            content=lambda: _chunks(spool),
            headers={"Content-Type": PARQUET, "Content-Length": str(size)},
        )
    client.finished(answer)


def _chunks(spool: IO[bytes]) -> Iterator[bytes]:
    """Yield a file from its beginning, as often as it is asked for."""
    spool.seek(0)
    while chunk := spool.read(2**20):
        yield chunk
