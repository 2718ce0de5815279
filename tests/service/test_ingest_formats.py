"""The same records in every format, and bodies that are made to hurt."""

import io
import json
import resource
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from service.ingest.columns import content_hashes
from service.ingest.formats import Format, format_of
from service.problems import BadRequest, MediaTypeUnknown, TooLarge
from tests.pace import slower
from tests.service.built import build, codes, faults, part, rows, schema, stream

START = datetime(2026, 11, 1, tzinfo=UTC)
RECORDS: list[dict[str, Any]] = [
    {
        "prediction_id": f"id-{number}",
        "timestamp": (START + timedelta(minutes=number)).isoformat(),
        "features": {"age": None if number == 3 else 20 + number / 4, "job": ["clerk", "a,b", 'c"d', "é"][number % 4]},
        "prediction": number % 2,
        "score": number / 10,
        "scores": {"a": 0.25, "b": 0.75},
        "tags": {"region": "EU"},
        "ground_truth": 1,
        "protected": {"sex": "F"},
    }
    for number in range(10)
]


def flat() -> pa.Table:
    """Return the same records as flat columns."""
    columns: dict[str, list[Any]] = {}
    for record in RECORDS:
        for name, value in record.items():
            members = {f"{name}.{member}": part for member, part in value.items()} if isinstance(value, dict) else {}
            for place, part_ in (members or {name: value}).items():
                columns.setdefault(place, []).append(part_)
    return pa.table(columns)


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def csv(table: pa.Table) -> bytes:
    """Return a table as CSV with a header."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def nested(table: pa.Table) -> pa.Table:
    """Return the same columns with the features in a struct."""
    names = [name for name in table.column_names if name.startswith("features.")]
    inner = pa.StructArray.from_arrays(
        [table[name].combine_chunks() for name in names], names=[name.removeprefix("features.") for name in names]
    )
    return table.drop_columns(names).append_column("features", inner)


def plain_names(table: pa.Table) -> pa.Table:
    """Return the same columns with features under their plain names."""
    return table.rename_columns([name.removeprefix("features.") for name in table.column_names])


def typed(table: pa.Table) -> pa.Table:
    """Return the same columns in the types that other programs would write."""
    table = table.set_column(
        table.column_names.index("timestamp"),
        "timestamp",
        pa.array(
            [datetime.fromisoformat(record["timestamp"]) for record in RECORDS], pa.timestamp("ms", "Europe/Paris")
        ),
    )
    table = table.set_column(table.column_names.index("features.job"), "job", table["features.job"].dictionary_encode())
    return table.set_column(
        table.column_names.index("prediction_id"), "prediction_id", table["prediction_id"].cast(pa.large_string())
    )


BODIES: dict[str, tuple[Callable[[], bytes], Format]] = {
    "json": (lambda: json.dumps(RECORDS).encode(), Format.JSON),
    "records": (lambda: json.dumps({"records": RECORDS}).encode(), Format.JSON),
    "json with a mark": (lambda: b"\xef\xbb\xbf" + json.dumps(RECORDS, indent=2).encode(), Format.JSON),
    "ndjson": (lambda: "\r\n".join(map(json.dumps, RECORDS)).encode(), Format.LINES),
    "ndjson with a logical value elsewhere": (lambda: "\n".join(map(json.dumps, RECORDS)).encode(), Format.LINES),
    "arrow": (lambda: stream(flat()), Format.ARROW),
    "arrow lz4": (lambda: stream(flat(), "lz4"), Format.ARROW),
    "arrow zstd, struct": (lambda: stream(nested(flat()), "zstd"), Format.ARROW),
    "arrow typed": (lambda: stream(typed(flat())), Format.ARROW),
    "parquet": (lambda: parquet(flat()), Format.PARQUET),
    "parquet typed": (lambda: parquet(typed(flat()), compression="zstd"), Format.PARQUET),
    "parquet plain names": (lambda: parquet(plain_names(flat())), Format.PARQUET),
    "csv": (lambda: csv(flat()), Format.CSV),
    "csv plain names": (lambda: csv(plain_names(flat())).replace(b"\n", b"\r\n"), Format.CSV),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_format_stores_equal_rows(name: str) -> None:
    make, form = BODIES[name]
    built, wanted = build(make(), form), build(json.dumps(RECORDS))
    assert not built.refusals
    assert not built.faults
    for kind in ("predictions", "ground_truth", "protected"):
        found = part(built, kind).table.combine_chunks()
        expected = part(wanted, kind).table.combine_chunks()
        assert set(found.column_names) == set(expected.column_names)
        for column in expected.column_names:
            assert found[column].to_pylist() == expected[column].to_pylist(), column
    contents = [content_hashes(part(each).table.combine_chunks().to_batches()[0]) for each in (built, wanted)]
    assert contents[0].tolist() == contents[1].tolist()
    assert len(set(contents[0].tolist())) == len(RECORDS)


def test_contents_do_not_depend_on_the_order_of_columns_or_on_absent_values() -> None:
    first = build('{"features": {"a": 1, "b": "x", "c": null}, "prediction": 1}')
    second = build('{"prediction": 1.0, "features": {"b": "x", "a": 1.0}, "tags": {"t": "u"}}')
    third = build('{"prediction": 1.0, "features": {"b": "x", "a": 1.5}}')
    swapped = build('{"features": {"b": 1, "a": "x"}, "prediction": 1}')
    found = [int(content_hashes(part(built).table.to_batches()[0])[0]) for built in (first, second, third, swapped)]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_cells_of_csv_are_read_as_their_features_types() -> None:
    body = (
        "prediction_id,age,job,owner,since\n"
        "a,41,7,true,2026-11-01T00:00:00Z\n"
        "b,x,,0,soon\n"
        "c,NaN,NA,,\n"
        "d,inf,1.0,maybe,\n"
    )
    model = schema(age="numeric", job="categorical", owner="boolean", since="datetime")
    built = build(body, Format.CSV, model)
    assert faults(built) == {
        (1, "age", "wrong_type"),
        (1, "since", "wrong_type"),
        (3, "age", "non_finite"),
        (3, "owner", "wrong_type"),
    }
    found = rows(built)
    assert [row["features.age"] for row in found] == [41.0, None, None, None]
    assert [row["features.job"] for row in found] == ["7", None, "NA", "1.0"]
    assert [row["features.owner"] for row in found] == [True, False, None, None]


def test_types_of_csv_columns_are_what_all_their_cells_can_be_read_as() -> None:
    built = build("n,t,b,mixed,empty\n1,x,true,1,\n2.5e3,y,false,z,\n,w,,,\n", Format.CSV)
    assert {name: feature.type for name, feature in built.new_features["1"].items()} == {
        "n": "numeric",
        "t": "categorical",
        "b": "boolean",
        "mixed": "categorical",
    }
    assert rows(built)[1]["features.n"] == 2500.0


def test_a_line_of_csv_with_another_number_of_cells_is_refused_alone() -> None:
    built = build("prediction_id,age\na,1\nb\nc,2,3\nd,4\n", Format.CSV)
    assert codes(built) == {1: "unreadable", 2: "unreadable"}
    assert [(row["prediction_id"], row["features.age"]) for row in rows(built)] == [("a", 1.0), ("d", 4.0)]


@pytest.mark.parametrize(
    ("array", "stored", "fault"),
    [
        (pa.array([1], pa.int8()), 1.0, None),
        (pa.array([2**63], pa.uint64()), 2.0**63, None),
        (pa.array([1.5], pa.float32()), 1.5, None),
        (pa.array([Decimal("1.25")]), 1.25, None),
        (pa.array([float("nan")]), None, None),
        (pa.array([float("inf")]), None, "non_finite"),
        (pa.array(["1"]), None, "wrong_type"),
        (pa.array([True]), None, "wrong_type"),
        (pa.array([b"1"]), None, "wrong_type"),
        (pa.array([[1]]), None, "wrong_type"),
        (pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us")), None, "wrong_type"),
        (pa.nulls(1), None, None),
    ],
)
def test_arrow_values_of_a_numeric_feature(array: pa.Array, stored: float | None, fault: str | None) -> None:
    built = build(stream(pa.table({"age": array})), Format.ARROW, schema(age="numeric"))
    assert rows(built)[0]["features.age"] == stored
    assert faults(built) == ({(0, "age", fault)} if fault else set())


def test_arrow_numbers_of_a_categorical_feature_have_the_one_spelling() -> None:
    table = pa.table({"job": pa.array([1.0, 0.1, None, float("inf")]), "code": pa.array([7, None, 7, 8])})
    built = build(stream(table), Format.ARROW, schema(job="categorical", code="categorical"))
    assert [row["features.job"] for row in rows(built)] == ["1", "0.1", None, None]
    assert [row["features.code"] for row in rows(built)] == ["7", None, "7", "8"]
    assert faults(built) == {(3, "job", "non_finite")}


def test_integer_ids_of_a_file_are_texts_and_others_are_refused() -> None:
    assert rows(build(stream(pa.table({"prediction_id": [17]})), Format.ARROW))[0]["prediction_id"] == "17"
    assert codes(build(stream(pa.table({"prediction_id": [1.5]})), Format.ARROW)) == {0: "bad_prediction_id"}


def test_times_of_a_file_need_a_zone() -> None:
    naive = pa.table({"timestamp": pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us"))})
    assert codes(build(stream(naive), Format.ARROW)) == {0: "bad_timestamp"}
    ancient = pa.table({"timestamp": pa.array([-(2**62)], pa.timestamp("s", "UTC"))})
    assert codes(build(stream(ancient), Format.ARROW)) == {0: "bad_timestamp"}


def test_texts_of_a_file_that_are_too_long_or_hold_nul_cost_their_record_only() -> None:
    table = pa.table({"prediction_id": ["a", "b", "c"], "job": ["x" * 4097, "a\x00b", "fine"]})
    for form, body in ((Format.ARROW, stream(table)), (Format.PARQUET, parquet(table))):
        built = build(body, form)
        assert codes(built) == {0: "too_large", 1: "nul"}
        assert [row["prediction_id"] for row in rows(built)] == ["c"]


@pytest.mark.parametrize("form", [Format.ARROW, Format.PARQUET, Format.CSV])
@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"PAR1", b"ARROW1\x00\x00", b"\xff\xff\xff\xff\x10\x00\x00\x00", b"\xff\xfe,\n\xff,1\n"]
)
def test_bodies_that_are_not_what_they_say_are_bad_requests(form: Format, body: bytes) -> None:
    if form is Format.CSV and body in (b"nonsense", b"PAR1", b"ARROW1\x00\x00"):
        assert build(body, form).count == 0  # a header without a line
    elif form is Format.ARROW and body == b"":
        with pytest.raises(BadRequest):
            build(body, form)
    else:
        with pytest.raises(BadRequest):
            build(body, form)


@pytest.mark.parametrize("form", [Format.ARROW, Format.PARQUET, Format.JSON, Format.LINES, Format.CSV])
def test_damaged_bodies_never_raise_anything_but_a_problem(form: Format) -> None:
    make = {Format.ARROW: lambda: stream(flat(), "lz4"), Format.PARQUET: lambda: parquet(flat())}
    others = {
        Format.JSON: json.dumps(RECORDS).encode(),
        Format.LINES: "\n".join(map(json.dumps, RECORDS)).encode(),
        Format.CSV: csv(flat()),
    }
    body = bytearray(make[form]() if form in make else others[form])
    rng = np.random.default_rng(7)
    for _ in range(150):
        damaged = bytearray(body)
        for at in rng.integers(0, len(body), rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(0, len(body))]
        try:
            built = build(bytes(damaged), form)
            assert built.count == sum(len(p.rows) for p in built.parts if p.kind == "predictions") + len(codes(built))
        except (BadRequest, TooLarge):
            pass


def test_media_types_and_charsets() -> None:
    assert format_of("application/json; charset=utf-8") == (Format.JSON, "utf-8")
    assert format_of("Text/CSV; header=present") == (Format.CSV, "utf-8")
    assert format_of(None) == (Format.JSON, "utf-8")
    with pytest.raises(MediaTypeUnknown, match="application/json"):
        format_of("application/x-www-form-urlencoded")


# --- bodies that are made to hurt -------------------------------------------------------------------------------------


def peak() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


HURTFUL: dict[str, tuple[Callable[[], bytes], Format]] = {
    "a million keys": (lambda: b'{"features": {%s}}' % b",".join(b'"k%d":1' % n for n in range(10**6)), Format.JSON),
    "nested 50,000 deep": (lambda: b'{"features": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", Format.JSON),
    "nested and not closed": (lambda: b"[" * 5_000_000, Format.JSON),
    "a text of 10 MB": (lambda: b'{"features": {"a": "%s"}}' % (b"x" * 10**7), Format.JSON),
    "a number of 10 MB": (lambda: b'[{"features": {"a": %s}}]' % (b"1" * 10**7), Format.JSON),
    "a list of numbers": (lambda: b"[" + b"1," * 10**6 + b"1]", Format.JSON),
    "lines of nothing": (lambda: b"\n" * 10**7 + b"{}", Format.LINES),
}


@pytest.mark.parametrize("name", HURTFUL)
def test_hurtful_json_is_refused_within_a_second_and_32_mebibytes(name: str) -> None:
    make, form = HURTFUL[name]
    build(b'[{"features": {"a": true}}]', form if form is Format.LINES else Format.JSON)
    body = make()
    before, began = peak(), time.process_time()
    try:
        built = build(body, form)
        assert len(codes(built)) == built.count or name == "lines of nothing"
    except BadRequest:
        pass
    assert time.process_time() - began < 1.0 * slower()
    assert peak() - before < 32 * 2**20


def test_a_parquet_file_of_many_equal_values_is_refused_before_it_is_decoded() -> None:
    many = pa.table({"a": pa.array(np.zeros(3_000_000))})
    body = parquet(many, compression="zstd")
    assert len(body) < 200_000
    with pytest.raises(TooLarge, match="records"):
        build(body, Format.PARQUET)
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(400_000, np.int32)), pa.array(["x" * 4_000]))
    body = parquet(pa.table({"a": text}))
    assert len(body) < 500_000
    before = peak()
    with pytest.raises(TooLarge, match="decoded"):
        build(body, Format.PARQUET)
    assert peak() - before < 32 * 2**20


def test_an_arrow_stream_that_claims_to_inflate_beyond_the_limit_is_refused_before_it_is_inflated() -> None:
    body = stream(pa.table({"a": pa.array(np.zeros(10_000_000))}), "zstd")
    assert len(body) < 100_000
    before = peak()
    with pytest.raises(TooLarge):
        build(body, Format.ARROW, limit=2**24)
    honest = stream(pa.table({"a": pa.array(np.arange(1000.0))}), "lz4")
    at = honest.index(struct.pack("<q", 8000))
    with pytest.raises((TooLarge, BadRequest)):
        build(honest[:at] + struct.pack("<q", 2**40) + honest[at + 8 :], Format.ARROW)
    assert peak() - before < 32 * 2**20


def test_a_batch_that_has_rows_without_bytes_is_refused() -> None:
    with pytest.raises(TooLarge):
        build(stream(pa.table({"a": pa.nulls(50_000_000)})), Format.ARROW)


def test_columns_that_come_twice_are_a_bad_request() -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(BadRequest, match="twice"):
        build(stream(twice), Format.ARROW)
    with pytest.raises(BadRequest, match="twice"):
        build("a,a\n1,2\n", Format.CSV)


LABELS = pa.table({"prediction_id": ["a", "b"], "ground_truth": pa.array([1, None], pa.int64())})


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (json.dumps(LABELS.to_pylist()).encode(), Format.JSON),
        (stream(LABELS), Format.ARROW),
        (parquet(LABELS), Format.PARQUET),
    ],
    ids=["json", "arrow", "parquet"],
)
def test_a_null_label_withdraws_in_every_format_that_has_nulls(body: bytes, form: Format) -> None:
    built = build(body, form, kind="ground_truth")
    assert not codes(built)
    assert [row["ground_truth"] for row in rows(built, "ground_truth", None)] == ["1", None]


def test_an_empty_cell_of_csv_is_no_label() -> None:
    built = build(b"prediction_id,ground_truth\na,1\nb,\n", Format.CSV, kind="ground_truth")
    assert codes(built) == {1: "ground_truth_missing"}
