"""Records that are alike are read in one pass: what is stored is what the tolerant parser would have stored."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ingest import uniform
from service.ingest.formats import Format
from tests.examples import SAME
from tests.service.built import build, faults, rows, schema

FEATURES = {"age": "numeric", "job": "categorical", "owner": "boolean", "since": "datetime", "note": "text"}

_CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**17), 10**17),
    st.integers(-100, 100),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["clerk", "Käse", "1.0", "", "2026-01-01T00:00:00Z", "日本 ✓", "-0"]),
)


def one_pass(text: str, *, lines: bool) -> Any:
    """Return the tables of one pass over a body, or none."""
    body = text.encode()
    return uniform.tables(body, np.frombuffer(body, np.uint8), 0 if lines else 1, lines=lines)


def record(number: int, cells: list[Any], names: list[str]) -> dict[str, Any]:
    """Return a record with so many features, the last cell as its prediction."""
    features = dict(zip(names, cells, strict=False))
    return {"prediction_id": f"p{number}", "features": features, "prediction": cells[-1], "tags": {"region": "EU"}}


@settings(SAME, max_examples=75)
@given(st.lists(st.lists(_CELLS, min_size=6, max_size=6), min_size=2, max_size=5), st.booleans(), st.data())
def test_one_pass_stores_what_the_tolerant_parser_stores(cells: list[list[Any]], same: bool, data: Any) -> None:
    names = [*FEATURES, "fresh"][:5]
    if same:  # columns of one type, as programs send them
        cells = [cells[0] for _ in cells]
    alike = [record(number, row, names) for number, row in enumerate(cells)]
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "  :\t ")]))
    form = data.draw(st.sampled_from([Format.LINES, Format.JSON]))
    other = [*alike[:-1], dict(reversed(alike[-1].items()))]  # another order of members: not alike

    def body(records: list[dict[str, Any]]) -> str:
        made = [json.dumps(each, ensure_ascii=False, separators=separators) for each in records]
        return "\r\n".join(made) if form is Format.LINES else "[" + " ,\n".join(made) + "]\n"

    assert one_pass(body(other), lines=form is Format.LINES) is None
    model = schema(**FEATURES)
    fast, slow = (build(body(records), form=form, model=model) for records in (alike, other))
    assert rows(fast) == rows(slow)
    assert faults(fast) == faults(slow)
    assert fast.count == slow.count == len(alike)


@pytest.mark.parametrize(
    "number",
    [
        "0",
        "-0",
        "-0.0",
        "0.1",
        "123456.789",
        "1e22",
        "1e-22",
        "9007199254740993.0",
        "0.1234567890123456789",
        "2.2250738585072014e-308",
        "5e-324",
        "1.7976931348623157e308",
        "1E+5",
        "0.000001",
        "100000000000000000000.5",
    ],
)
def test_every_spelling_of_a_number_is_read_as_its_nearest_float(number: str) -> None:
    tables = one_pass(f'{{"score": {number}}}\n{{"score": {number}}}', lines=True)
    assert tables is not None
    expected = float(number) + (0.0 if number == "-0" else 0)
    assert tables[0]["score"].to_pylist() == [expected, expected]


def test_numbers_of_all_lengths_are_read_as_their_nearest_floats_wherever_they_lie() -> None:
    random = np.random.default_rng(3)
    spelt = [
        f"{sign}{random.integers(0, 10**whole)}.{random.integers(0, 10**parts):0{parts}d}{power}"
        for whole in range(1, 18)
        for parts in range(1, 18)
        for sign in ("", "-")
        for power in ("", "e3", "E-07")
    ]
    spelt += [str(random.integers(-(10**size), 10**size)) for size in range(1, 16) for _ in range(5)]
    body = "\n".join(f'{{"prediction_id":"{"x" * (at % 9)}","score":{number}}}' for at, number in enumerate(spelt))
    tables = one_pass(body, lines=True)
    assert tables is not None
    assert [value for table in tables for value in table["score"].to_pylist()] == [float(number) for number in spelt]
    assert tables[0]["prediction_id"].to_pylist()[:20] == ["x" * (at % 9) for at in range(20)]


def test_signs_that_end_a_text_are_seen_at_every_place_of_a_word() -> None:
    for length in range(24):
        for sign, kept in (("\\n", None), ("\x1f", None), ("é", "é"), ("\x7f", "\x7f"), ("!", "!"), ("#", "#")):
            text = "x" * length + sign
            tables = one_pass(f'{{"version": "{text}", "score": 1}}\n' * 3, lines=True)
            assert (tables and tables[0]["version"].to_pylist()) == (kept and ["x" * length + kept] * 3)


@pytest.mark.parametrize(
    "second",
    [
        '{"score": 01}',
        '{"score": 1.}',
        '{"score": .5}',
        '{"score": +1}',
        '{"score": 1e}',
        '{"score": -}',
        '{"score": 1e400}',
        '{"score": NaN}',
        '{"score": 1} x',
        '{"score": 1',
        '{"score" 1}',
        '{"score": 1,}',
        '{"score": "\\u0041"}',
        "{}",
        '{"score": nul}',
        '{"score": tru}',
        '{"score": "1"}',
        '{"score": [1]}',
        '{"scorf": 1}',
        '{"score": 1, "a": 2}',
        '{"score": 1}}',
        "[1]",
        "7",
        '{"score": 12345678901234567890}',
        '{"score": 1 2}',
        '{"score":',
        '{"sco',
        "{",
    ],
)
def test_whatever_was_not_expected_ends_the_pass(second: str) -> None:
    assert one_pass(f'{{"score": 1}}\n{second}', lines=True) is None
    assert one_pass(f'[{{"score": 1}},{second}]', lines=False) is None


@pytest.mark.parametrize("text", ['"a\x00b"', '"a\tb"', '"' + "x" * 5000 + '"', '"open', '"a\\"b"'])
def test_texts_that_need_a_closer_look_end_the_pass(text: str) -> None:
    assert one_pass(f'{{"version": "a"}}\n{{"version": {text}}}', lines=True) is None


def test_bytes_that_are_no_text_end_the_pass() -> None:
    body = b'{"version": "a"}\n{"version": "\xff\xfe"}'
    assert uniform.tables(body, np.frombuffer(body, np.uint8), 0, lines=True) is None


def test_an_array_has_to_be_closed_with_nothing_behind_it() -> None:
    assert one_pass('[{"score": 1}', lines=False) is None
    assert one_pass('[{"score": 1},]', lines=False) is None
    assert one_pass('[{"score": 1}] []', lines=False) is None
    assert one_pass('[{"score": 1}]\r\n ', lines=False) is not None


def test_many_records_come_in_blocks_in_their_order() -> None:
    body = "\n".join(json.dumps({"score": number / 8}) for number in range(20_000))
    tables = one_pass(body, lines=True)
    assert tables is not None
    assert len(tables) > 1
    assert [value for table in tables for value in table["score"].to_pylist()] == [n / 8 for n in range(20_000)]


def test_a_text_is_no_set_of_labels() -> None:
    model = schema(task="multilabel")
    built = build('{"prediction_id": "a", "prediction": "[1]"}', form=Format.LINES, model=model)
    assert faults(built) == {(0, "prediction", "wrong_type")}
