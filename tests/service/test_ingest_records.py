"""What of a record is kept, what is missing and why, what is refused: rule by rule."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ingest.columns import Record, subject_text
from service.ingest.formats import Format
from service.ingest.scan import TEXT
from service.problems import BadRequest
from tests.examples import SAME
from tests.service.built import NOW, SECRET, build, codes, faults, rows, schema

FEATURES = {
    "age": "numeric",
    "job": "categorical",
    "owner": "boolean",
    "since": "datetime",
    "note": "text",
    "face": "embedding",
}


def one(value: str, feature: str = "age") -> Any:
    """Return what became of one value (JSON text) of a feature, and its fault."""
    built = build(f'{{"prediction_id": "a", "features": {{"{feature}": {value}}}}}', model=schema(**FEATURES))
    assert not built.refusals
    found = rows(built)[0].get(f"features.{feature}")
    wrong = {code for _, label, code in faults(built) if label == feature}
    text = rows(built)[0]["faults"]
    assert (json.loads(text) if text else {}) == dict.fromkeys([feature] * len(wrong), next(iter(wrong), ""))
    return found, wrong.pop() if wrong else None


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(),
        st.sampled_from(["true", "\x00", "\\u0000", "\ud800", "records", "{", "é", "2026-01-01T00:00:00Z", ""]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "records", "age"]), inner),
    max_leaves=12,
)


@settings(SAME, max_examples=100)
@given(st.dictionaries(st.sampled_from([*Record.__struct_fields__, "records", "more"]), _JSON), st.text(max_size=2))
def test_a_short_record_is_read_as_one_that_is_searched_for_limits(members: dict[str, Any], end: str) -> None:
    text = json.dumps(members) + end
    found: list[object] = []
    for body in (text, text + " " * TEXT):  # beyond this length the passes look at every byte
        try:
            built = build(body, model=schema(**FEATURES))
        except BadRequest as refused:
            found.append((type(refused), refused.detail))
            continue
        kept = [{**part.table.to_pylist()[0], "prediction_id": "", "id_hash": 0} for part in built.parts]
        found.append((repr(kept), codes(built), faults(built), built.counted, built.count))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("value", "stored", "fault"),
    [
        ("41", 41.0, None),
        ("41.5", 41.5, None),
        ("null", None, None),
        ("NaN", None, None),
        ("Infinity", None, "non_finite"),
        ("-Infinity", None, "non_finite"),
        ("1e400", None, "non_finite"),
        ("-1e400", None, "non_finite"),
        ("1" * 5000, None, "non_finite"),
        ("18446744073709551616", 18446744073709551616.0, None),
        ("9007199254740993", 9007199254740992.0, None),
        ("1e-400", 0.0, None),
        ('"41"', None, "wrong_type"),
        ('"nan"', None, "wrong_type"),
        ("true", None, "wrong_type"),
        ("[41]", None, "wrong_type"),
        ('{"value": 41}', None, "wrong_type"),
        (r'"\ud800"', None, "wrong_type"),
    ],
)
def test_a_bad_number_is_missing_and_counted_and_never_costs_the_record(
    value: str, stored: float | None, fault: str | None
) -> None:
    assert one(value) == (stored, fault)


@pytest.mark.parametrize(
    ("feature", "value", "stored", "fault"),
    [
        ("job", '"clerk"', "clerk", None),
        ("job", "3", "3", None),
        ("job", "3.0", "3", None),
        ("job", "0.1", "0.1", None),
        ("job", "true", "true", None),
        ("job", "NaN", None, None),
        ("job", "Infinity", None, "non_finite"),
        ("job", "[1]", None, "wrong_type"),
        ("job", r'"\ud83d"', None, "wrong_type"),
        ("job", r'"\ud83d\ude00"', "😀", None),
        ("owner", "true", True, None),
        ("owner", "0", False, None),
        ("owner", "1.0", True, None),
        ("owner", "2", None, "wrong_type"),
        ("owner", '"true"', None, "wrong_type"),
        ("since", '"2026-11-22T14:00:00+01:00"', datetime(2026, 11, 22, 13, tzinfo=UTC), None),
        ("since", '"2026-11-22T13:00:00.123456789Z"', datetime(2026, 11, 22, 13, 0, 0, 123456, tzinfo=UTC), None),
        ("since", '"2026-11-22T13:00:00"', None, "wrong_type"),
        ("since", '"soon"', None, "wrong_type"),
        ("since", "1763816400", None, "wrong_type"),
        ("note", '"two words"', "two words", None),
        ("face", "[1, 2.5]", [1.0, 2.5], None),
        ("face", '[1, "2"]', None, "wrong_type"),
        ("face", "[1, 1e39]", None, "non_finite"),
        ("face", "1", None, "wrong_type"),
    ],
)
def test_values_become_the_type_of_their_feature_or_are_missing(
    feature: str, value: str, stored: object, fault: str | None
) -> None:
    assert one(value, feature) == (stored, fault)


@pytest.mark.parametrize(
    ("record", "code", "pointer"),
    [
        ("3", "not_an_object", ""),
        ("null", "not_an_object", ""),
        ('"text"', "not_an_object", ""),
        ("[[]]", "not_an_object", ""),
        ('{"prediction_id": 5}', "bad_prediction_id", "/prediction_id"),
        ('{"prediction_id": ""}', "bad_prediction_id", "/prediction_id"),
        (json.dumps({"prediction_id": "é" * 257}), "bad_prediction_id", "/prediction_id"),
        (r'{"prediction_id": "\udc00"}', "bad_prediction_id", "/prediction_id"),
        ('{"timestamp": "yesterday"}', "bad_timestamp", "/timestamp"),
        ('{"timestamp": "2026-11-22T13:00:00"}', "bad_timestamp", "/timestamp"),
        ('{"timestamp": "2026-11-22"}', "bad_timestamp", "/timestamp"),
        ('{"timestamp": 1763816400}', "bad_timestamp", "/timestamp"),
        ('{"timestamp": "2026-02-30T00:00:00Z"}', "bad_timestamp", "/timestamp"),
        ('{"timestamp": "0001-01-01T00:00:00+05:00"}', "bad_timestamp", "/timestamp"),
        ('{"timestamp": "2026-11-22T13:05:00.000001Z"}', "timestamp_in_future", "/timestamp"),
        ('{"version": 2}', "bad_version", "/version"),
        ('{"version": "../2"}', "bad_version", "/version"),
        ('{"version": ""}', "bad_version", "/version"),
        (json.dumps({"version": "v" * 129}), "bad_version", "/version"),
        (json.dumps({"features": {"deep": [[[[[[[1]]]]]]]}}), "too_deep", ""),
        (json.dumps({"features": {f"f{number}": 1 for number in range(2000)}}), "too_large", ""),
        (json.dumps({"features": {"note": "x" * 4097}}), "too_large", ""),
        (r'{"features": {"job": "a\u0000b"}}', "nul", ""),
        (r'{"features": {"jo\u0000b": "a"}}', "nul", ""),
    ],
)
@pytest.mark.parametrize("form", [Format.JSON, Format.LINES])
def test_a_faulty_record_is_refused_alone_with_its_reason(record: str, code: str, pointer: str, form: Format) -> None:
    good = '{"prediction_id": "good", "features": {"age": 1}}'
    body = f"[{good}, {record}, {good}]" if form is Format.JSON else f"{good}\n{record}\n{good}"
    built = build(body, form)
    assert codes(built) == {1: code}
    assert built.refusals[0].pointer == pointer
    assert built.refusals[0].detail
    assert [row["prediction_id"] for row in rows(built)] == ["good", "good"]
    assert built.count == 3


def test_what_is_just_within_the_limits_is_kept() -> None:
    record = {
        "prediction_id": "é" * 256,
        "timestamp": "2026-11-22T13:05:00Z",
        "version": "v" * 128,
        "features": {f"f{number}": "x" * 4096 if number == 0 else 1 for number in range(1990)},
    }
    built = build(record)
    assert not built.refusals
    assert rows(built, version="v" * 128)[0]["features.f0"] == "x" * 4096


def test_time_defaults_to_the_arrival_and_is_kept_in_utc() -> None:
    built = build('[{"prediction_id": "a"}, {"prediction_id": "b", "timestamp": "2018-11-01T02:30:00+02:30"}]')
    first, second = rows(built)
    assert first["timestamp"] == first["received_at"] == NOW
    assert second["timestamp"] == datetime(2018, 11, 1, tzinfo=UTC)


def test_records_without_an_id_get_one_of_their_own() -> None:
    built = build([{"features": {"age": 1}}, {"features": {"age": 1}}, {"prediction_id": "a"}])
    ids = [row["prediction_id"] for row in rows(built)]
    assert len(set(ids)) == 3
    assert ids[0][12] == "7"  # the version of a UUIDv7
    assert int(ids[0][:12], 16) == NOW.timestamp() * 1000
    assert built.parts[0].anonymous.tolist() == [True, True, False]


def test_records_of_several_versions_are_kept_apart_each_with_types_of_its_own() -> None:
    built = build(
        '[{"prediction_id": "a", "version": "x", "features": {"f": 1}},'
        ' {"prediction_id": "a", "version": "y", "features": {"f": "one"}},'
        ' {"prediction_id": "a", "version": "x", "features": {"f": 2}}]'
    )
    assert [row["features.f"] for row in rows(built, version="x")] == [1.0, 2.0]
    assert [row["features.f"] for row in rows(built, version="y")] == ["one"]
    assert {version: {f: t.type for f, t in new.items()} for version, new in built.new_features.items()} == {
        "x": {"f": "numeric"},
        "y": {"f": "categorical"},
    }


def test_types_of_new_features_are_taken_from_their_first_values_and_then_hold() -> None:
    built = build('[{"features": {"a": null, "b": true}}, {"features": {"a": 1}}, {"features": {"a": "x", "b": 7}}]')
    assert {name: feature.type for name, feature in built.new_features["1"].items()} == {"a": "numeric", "b": "boolean"}
    assert faults(built) == {(2, "a", "wrong_type"), (2, "b", "wrong_type")}
    assert [row["features.a"] for row in rows(built)] == [None, 1.0, None]


def test_a_value_of_no_type_makes_no_feature_and_is_counted() -> None:
    built = build('{"features": {"odd": {"x": 1}, "good": 1}}')
    assert faults(built) == {(0, "odd", "wrong_type")}
    assert list(built.new_features["1"]) == ["good"]


def test_at_most_two_thousand_features_are_stored_and_the_others_are_counted() -> None:
    first = {f"f{number}": 1 for number in range(1500)}
    second = {f"g{number}": 1 for number in range(1500)}
    built = build([{"features": first}, {"features": second}])
    assert len(built.new_features["1"]) == 2000
    assert sum(len(remark.rows) for remark in built.remarks if remark.code == "features_not_stored") == 1000


def test_members_that_nobody_knows_are_counted() -> None:
    built = build('[{"feature": {"age": 1}, "prediction_id": "a"}, {"prediction_id": "b"}]')
    assert not built.refusals
    assert dict(built.counted) == {"members_not_stored": 1}


def test_features_that_are_no_object_are_missing_and_counted() -> None:
    built = build('[{"prediction_id": "a", "features": [1, 2]}, {"prediction_id": "b", "features": {"age": 1}}]')
    assert faults(built) == {(0, "features", "wrong_type")}
    assert [row["features.age"] for row in rows(built)] == [None, 1.0]


def test_the_last_of_two_equal_keys_counts() -> None:
    assert rows(build('{"features": {"age": 1, "age": 2}}'))[0]["features.age"] == 2.0


@pytest.mark.parametrize(
    ("classes", "value", "stored"),
    [
        (None, "1", "1"),
        (None, "1.0", "1"),
        (None, '"1.0"', "1"),
        (None, '"yes"', "yes"),
        (None, "true", "true"),
        (("0", "1"), "true", "1"),
        (("0", "1"), "false", "0"),
        (("0", "1"), '"True"', "1"),
        (("no", "yes"), '"maybe"', "maybe"),
        (None, "0.5", "0.5"),
        (None, "null", None),
        (None, "NaN", None),
    ],
)
def test_class_labels_have_one_spelling(classes: tuple[str, ...] | None, value: str, stored: str | None) -> None:
    model = replace(schema(), classes=classes)
    assert rows(build(f'{{"prediction": {value}}}', model=model))[0].get("prediction") == stored
    label = build(f'{{"prediction_id": "a", "ground_truth": {value}}}', model=model, kind="ground_truth")
    assert rows(label, "ground_truth", None)[0]["ground_truth"] == stored


def test_a_class_that_is_not_declared_is_kept_and_counted() -> None:
    built = build('[{"prediction": "maybe"}, {"prediction": "yes"}]', model=replace(schema(), classes=("no", "yes")))
    assert [row["prediction"] for row in rows(built)] == ["maybe", "yes"]
    assert [(remark.code, remark.rows.tolist()) for remark in built.remarks] == [("unknown_class", [0])]


def test_numbers_of_a_regression_are_numbers_and_their_labels_the_shortest_text() -> None:
    built = build('[{"prediction": 0.1}, {"prediction": "0.1"}, {"prediction": 3}]', model=schema("regression"))
    assert [row["prediction"] for row in rows(built)] == [0.1, None, 3.0]
    assert faults(built) == {(1, "prediction", "wrong_type")}
    labels = build(
        '[{"prediction_id": "a", "ground_truth": 0.1}, {"prediction_id": "b", "ground_truth": 3.0},'
        ' {"prediction_id": "c", "ground_truth": "3"}]',
        model=schema("regression"),
        kind="ground_truth",
    )
    assert [row["ground_truth"] for row in rows(labels, "ground_truth", None)] == ["0.1", "3"]
    assert codes(labels) == {2: "bad_ground_truth"}


def test_label_sets_are_sorted_json_arrays() -> None:
    built = build('[{"prediction": ["b", "a", "b", 1.0]}, {"prediction": "a"}]', model=schema("multilabel"))
    assert [row["prediction"] for row in rows(built)] == ['["1","a","b"]', None]
    assert faults(built) == {(1, "prediction", "wrong_type")}


def test_a_missing_prediction_is_derived_from_the_score_and_the_threshold() -> None:
    model = replace(schema(), classes=("bad", "good"), positive_class="bad", threshold=0.3)
    built = build('[{"score": 0.3}, {"score": 0.29}, {"score": 0.9, "prediction": "good"}, {}]', model=model)
    assert [row["prediction"] for row in rows(built)] == ["bad", "good", "good", None]
    assert rows(build('{"score": 0.5}'))[0]["prediction"] == "1"


def test_a_score_outside_zero_and_one_is_kept_and_a_text_is_not() -> None:
    built = build('[{"score": -3.5}, {"score": "0.5"}, {"score": true}]')
    assert [row["score"] for row in rows(built)] == [-3.5, None, None]
    assert faults(built) == {(1, "score", "wrong_type"), (2, "score", "wrong_type")}


def test_scores_tags_and_attributions_have_columns_of_their_own() -> None:
    record = {
        "scores": {"a": 0.1, "b": "x"},
        "tags": {"region": "EU", "shop": 7},
        "attributions": {"age": 0.2},
    }
    built = build(record, model=schema("multiclass"))
    row = rows(built)[0]
    assert (row["scores.a"], row["scores.b"]) == (0.1, None)
    assert (row["tags.region"], row["tags.shop"], row["attributions.age"]) == ("EU", "7", 0.2)
    assert faults(built) == {(0, "scores.b", "wrong_type")}


def test_a_subject_is_stored_as_a_keyed_hash_only() -> None:
    built = build('[{"subject": "ann@example.org"}, {"subject": "ann@example.org"}, {"subject": null}]')
    first, second, third = (row["subject"] for row in rows(built))
    assert first == second == subject_text("subject\x1fann@example.org", SECRET)
    assert third is None
    assert "ann" not in str(built.parts)


def test_labels_and_protected_attributes_of_a_prediction_are_rows_of_their_own() -> None:
    built = build(
        '[{"prediction_id": "a", "ground_truth": 1, "protected": {"sex": "F", "age": 41}},'
        ' {"prediction_id": "b", "ground_truth": null, "protected": {"sex": {"x": 1}}},'
        ' {"prediction_id": "c"}]'
    )
    assert [(row["prediction_id"], row["ground_truth"]) for row in rows(built, "ground_truth")] == [("a", "1")]
    assert [(row["prediction_id"], row["attributes"]) for row in rows(built, "protected")] == [
        ("a", '{"age":41,"sex":"F"}')
    ]
    assert faults(built) == {(1, "protected", "wrong_type")}
    assert not [name for name in built.parts[0].table.column_names if "sex" in name or "truth" in name]


def test_ground_truth_is_refused_only_where_it_says_nothing() -> None:
    built = build(
        '[{"prediction_id": "a", "ground_truth": 1}, {"prediction_id": "b", "ground_truth": null},'
        ' {"prediction_id": "c"}, {"ground_truth": 1}, {"prediction_id": "d", "ground_truth": {"x": 1}},'
        ' {"prediction_id": "e", "ground_truth": 1, "version": "2", "timestamp": "2026-11-01T00:00:00Z"}]',
        kind="ground_truth",
    )
    assert codes(built) == {2: "ground_truth_missing", 3: "bad_prediction_id", 4: "bad_ground_truth"}
    assert [row["ground_truth"] for row in rows(built, "ground_truth", None)] == ["1", None]
    assert rows(built, "ground_truth", "2")[0]["timestamp"] == datetime(2026, 11, 1, tzinfo=UTC)


def test_protected_attributes_are_an_object_of_scalars() -> None:
    built = build(
        '[{"prediction_id": "a", "protected": {"sex": "F", "age": null}}, {"prediction_id": "b"},'
        ' {"prediction_id": "c", "protected": "F"}, {"prediction_id": "d", "protected": {"sex": ["F"]}}]',
        kind="protected",
    )
    assert [row["attributes"] for row in rows(built, "protected", None)] == ['{"age":null,"sex":"F"}']
    assert set(codes(built).values()) == {"bad_protected"}
    assert set(codes(built)) == {1, 2, 3}


def test_a_schema_may_refuse_records_with_a_bad_value() -> None:
    model = replace(schema(age="numeric"), refuses=True)
    built = build('[{"prediction_id": "a", "features": {"age": "x"}}, {"prediction_id": "b"}]', model=model)
    assert codes(built) == {0: "wrong_type"}
    assert built.refusals[0].pointer == "/features/age"
    assert [row["prediction_id"] for row in rows(built)] == ["b"]


def test_features_can_be_dropped_or_stored_as_hashes() -> None:
    from service.ingest.schemas import Feature, VersionSchema

    features = {"name": Feature("categorical", "hash"), "iban": Feature("text", "drop"), "age": Feature("numeric")}
    model = replace(schema(), versions={"1": VersionSchema(1, features)})
    row = rows(build('{"features": {"name": "Ann", "iban": "DE00", "age": 1}}', model=model))[0]
    assert "features.iban" not in row
    assert len(row["features.name"]) == 32
    assert row["features.age"] == 1.0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "   ",
        "{",
        "}",
        "[",
        "[1,]",
        "[,]",
        "nonsense",
        '{"features": {]}',
        '[{"a": 1}] x',
        '{"records": [}',
        '{"records": 3}',
        '{"records": [{}], "x": }',
        '[{"features": {"a": 01}}]',
        "[" * 50_000,
        '{"a":' * 50_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_body_that_is_no_json_is_a_bad_request(body: str | bytes) -> None:
    with pytest.raises(BadRequest):
        build(body)


def test_lines_that_are_no_json_are_refused_alone_unless_none_is() -> None:
    built = build(
        '{"prediction_id": "a"}\nnonsense\n\n{"prediction_id": "b"} {"c": 1}\n{"prediction_id": "d"}', Format.LINES
    )
    assert codes(built) == {1: "unreadable", 2: "unreadable"}
    assert [row["prediction_id"] for row in rows(built)] == ["a", "d"]
    with pytest.raises(BadRequest):
        build("<html>\n</html>", Format.LINES)


def test_large_bodies_are_read_in_blocks_with_the_same_result() -> None:
    records = [
        {"prediction_id": f"{number}", "features": {"n": number / 7, "job": "x" * 50}} for number in range(20_000)
    ]
    array, lines = build(records), build("\n".join(map(json.dumps, records)), Format.LINES)
    assert array.parts[0].table.combine_chunks().equals(lines.parts[0].table.combine_chunks())
    assert array.parts[0].rows.tolist() == list(range(20_000))
    assert rows(array)[19_999]["features.n"] == pytest.approx(19_999 / 7)
    assert not math.isnan(rows(array)[0]["features.n"])
