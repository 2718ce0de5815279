"""Profiles: small on disk at any traffic, back from their bytes as they were, and read as numbers."""

from contextlib import suppress
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitors.kernel import profile_batches
from monitors.layout import CategoryLayout, Layout, NumericLayout, OutcomeLayout, plan_layout
from monitors.profile import CategoryProfile, NumericProfile, Profile, merge, merged, summed
from tests.examples import SAME
from tests.monitors.rows import mixed_columns, mixed_layout, mixed_rows

LAYOUT = mixed_layout()
PROFILE = profile_batches([mixed_rows(4000, 2)], LAYOUT)


def wide_rows(number: int, seed: int) -> pa.RecordBatch:
    """Return rows of 40 numbers, 10 texts of up to 1,000 values and what a binary model adds."""
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {}
    for i in range(40):
        shape = (rng.normal(size=number), rng.lognormal(size=number), rng.pareto(0.5, number))[i % 3]
        columns[f"features.n{i}"] = pa.array(shape, mask=rng.random(number) < 0.02)
    for i, values in enumerate((5, 8, 12, 20, 40, 80, 150, 300, 600, 1000)):
        codes = pa.array(rng.integers(0, values, number).astype(np.int32))
        columns[f"features.c{i}"] = pa.DictionaryArray.from_arrays(codes, pa.array([f"v{k}" for k in range(values)]))
    columns["score"] = rng.beta(2, 5, number)
    for name in ("prediction", "ground_truth"):
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 2, number, np.int32)), ["0", "1"])
    codes = pa.array(rng.integers(0, 5, number, np.int32))
    columns["group.region"] = pa.DictionaryArray.from_arrays(codes, list("abcde"))
    return pa.record_batch(columns)


def wide_columns(batch: pa.RecordBatch) -> Layout:
    from monitors.contract import Column, Role, Type

    columns = [
        Column(
            name=field.name,
            role=Role.SCORE if field.name == "score" else Role.FEATURE,
            type=Type.NUMERIC if pa.types.is_floating(field.type) else Type.CATEGORICAL,
        )
        for field in batch.schema
        if not field.name.startswith("group.")
    ]
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", {"region": tuple("abcde")})
    return plan_layout([batch], columns, outcomes=outcomes)


@cache
def wide() -> Layout:
    """Return the layout of fifty thousand such rows."""
    return wide_columns(wide_rows(50_000, 0))


def size(profile: Profile) -> int:
    return len(profile.encode_inputs()) + len(profile.encode_outcomes())


def test_a_profile_of_1000_rows_of_50_columns_is_at_most_64_kilobytes() -> None:
    assert size(profile_batches([wide_rows(1000, 1)], wide())) <= 64_000


def turned(batch: pa.RecordBatch, by: int) -> pa.RecordBatch:
    """Return rows in which each number stands where one of its kind stood, every third column being of one kind."""
    numbers = {f"features.n{i}": batch.column(f"features.n{(i + 3 * by) % 39}") for i in range(39)}
    return pa.record_batch({name: numbers.get(name, batch.column(name)) for name in batch.schema.names})


def test_a_profile_of_a_million_rows_of_50_columns_is_at_most_400_kilobytes() -> None:
    # Drawing costs more than counting: two draws, each with its columns in 10 orders, give a column 20 other samples.
    drawn = [wide_rows(50_000, seed) for seed in (1, 2)]
    profile = profile_batches((turned(batch, by) for batch in drawn for by in range(10)), wide())
    assert profile.rows == 1_000_000
    assert size(profile) <= 400_000


def test_counts_and_moments_come_back_exactly_and_means_inside_cells_nearly() -> None:
    again = Profile.decode(LAYOUT, PROFILE.encode_inputs(), PROFILE.encode_outcomes())
    assert (again.rows, again.first_us, again.last_us) == (PROFILE.rows, PROFILE.first_us, PROFILE.last_us)
    assert again.labelled
    assert again.columns.keys() == PROFILE.columns.keys()
    for name, column in PROFILE.columns.items():
        match = again.columns[name]
        assert match.counts.tolist() == column.counts.tolist()
        assert (match.count, match.missing, match.wrong_type) == (column.count, column.missing, column.wrong_type)
        layout = LAYOUT.columns[name]
        if isinstance(column, CategoryProfile):
            assert isinstance(match, CategoryProfile)
            assert match.new == column.new
            assert match.distinct.tolist() == column.distinct.tolist()
            continue
        assert isinstance(match, NumericProfile)
        assert isinstance(layout, NumericLayout)
        assert (match.mean, match.m2) == (column.mean, column.m2)
        assert (match.minimum, match.maximum) == (column.minimum, column.maximum)
        if not layout.edges.size:
            continue
        low, high = layout.bounds(column.minimum, column.maximum)
        off = np.abs(match.positions(layout) - column.positions(layout))
        assert (off <= (high - low) / 509 + 1e-12 * np.abs(low)).all(), name
    for name, table in PROFILE.outcomes.items():
        assert again.outcomes[name].tolist() == table.tolist()


def test_storing_again_what_was_stored_changes_no_byte() -> None:
    inputs, outcomes = PROFILE.encode_inputs(), PROFILE.encode_outcomes()
    again = Profile.decode(LAYOUT, inputs, outcomes)
    assert (again.encode_inputs(), again.encode_outcomes()) == (inputs, outcomes)


def test_stored_profiles_are_summed_to_the_bit_to_what_they_are_merged_to() -> None:
    profiles = [profile_batches([mixed_rows(rows, seed)], LAYOUT) for seed, rows in ((3, 40), (4, 1), (5, 3000))]
    stored = [(profile.encode_inputs(), profile.encode_outcomes()) for profile in [*profiles, Profile.empty(LAYOUT)]]
    for parts in (stored, [(inputs, None) for inputs, _ in stored], [stored[0], (stored[1][0], None)]):
        total, expected = summed(LAYOUT, parts), merged(LAYOUT, [Profile.decode(LAYOUT, *part) for part in parts])
        assert (total.rows, total.first_us, total.last_us) == (expected.rows, expected.first_us, expected.last_us)
        assert total.labelled == expected.labelled
        assert total.tally.counts.tolist() == expected.tally.counts.tolist()
        assert total.tally.sums.tolist() == expected.tally.sums.tolist()
        assert total.encode_inputs() == expected.encode_inputs()
        assert total.encode_outcomes() == expected.encode_outcomes()
    assert summed(LAYOUT, []).rows == 0


def test_profiles_of_labels_alone_add_up() -> None:
    layout = Layout({"ground_truth": CategoryLayout(("0", "1"))})
    rows = pa.record_batch({"ground_truth": pa.array(["0", "1", "1", None])})
    stored = profile_batches([rows], layout)
    total = summed(layout, 3 * [(stored.encode_inputs(), stored.encode_outcomes())])
    assert (total.rows, total.labelled) == (12, True)
    assert total.columns["ground_truth"].counts.tolist() == [3, 6, 0]


@cache
def many_parts() -> list[tuple[bytes, bytes]]:
    """Return the stored profiles of 70 buckets of 1 to 2,000 rows, more than are read at once, some without labels."""
    rows = mixed_rows(16_000, 3)
    ends = np.cumsum([2000, *np.random.default_rng(11).geometric(0.006, 69).tolist()]).tolist()
    parts = [rows.slice(start, stop - start) for start, stop in pairwise([0, *ends])]
    parts = [part if place % 5 else part.drop_columns(["ground_truth"]) for place, part in enumerate(parts)]
    profiles = [profile_batches([part], LAYOUT) for part in parts]
    return [(profile.encode_inputs(), profile.encode_outcomes()) for profile in profiles]


@settings(SAME, max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 69), st.booleans()), max_size=140))
def test_stored_profiles_read_together_are_those_merged_one_by_one_in_any_order(chosen: list[tuple[int, bool]]) -> None:
    stored = [many_parts()[place] for place, _ in chosen]
    parts = [(inputs, outcomes if told else None) for (inputs, outcomes), (_, told) in zip(stored, chosen, strict=True)]
    one_by_one = Profile.empty(LAYOUT)
    for part in parts:
        one_by_one = merge(one_by_one, Profile.decode(LAYOUT, *part))
    together, turned = summed(LAYOUT, parts), summed(LAYOUT, parts[::-1])
    assert together.encode_inputs() == one_by_one.encode_inputs()
    assert together.encode_outcomes() == one_by_one.encode_outcomes()
    assert together.tally.sums.tolist() == one_by_one.tally.dense(LAYOUT).sums.tolist()
    assert (turned.rows, turned.first_us, turned.last_us) == (together.rows, together.first_us, together.last_us)
    assert turned.tally.whole.tolist() == together.tally.whole.tolist()
    assert turned.tally.counts.tolist() == together.tally.counts.tolist()
    assert turned.tally.new == together.tally.new
    np.testing.assert_allclose(turned.tally.sums, together.tally.sums, rtol=1e-9)
    np.testing.assert_allclose(turned.tally.broken, together.tally.broken, rtol=1e-9, atol=1e-9)
    for name, table in together.outcomes.items():
        assert turned.outcomes[name].tolist() == table.tolist()


def test_inputs_alone_have_no_labels_and_no_outcomes() -> None:
    again = Profile.decode(LAYOUT, PROFILE.encode_inputs())
    assert "ground_truth" not in again.columns
    assert again.outcomes == {}
    assert not again.labelled


def test_a_profile_made_of_columns_is_stored_like_one_made_of_rows() -> None:
    by_hand = Profile(
        LAYOUT, PROFILE.rows, PROFILE.first_us, PROFILE.last_us, dict(PROFILE.columns), dict(PROFILE.outcomes)
    )
    again = Profile.decode(LAYOUT, by_hand.encode_inputs(), by_hand.encode_outcomes())
    for name, column in PROFILE.columns.items():
        assert again.columns[name].counts.tolist() == column.counts.tolist()
    assert again.outcomes["sex"].tolist() == PROFILE.outcomes["sex"].tolist()
    total = merge(by_hand, PROFILE)
    assert total.columns["features.tail"].count == 2 * PROFILE.columns["features.tail"].count


def test_profiles_of_other_layouts_neither_add_up_nor_read() -> None:
    other = Layout({"features.x": NumericLayout(np.array([1.0]))})
    with pytest.raises(ValueError, match="do not add up"):
        merge(PROFILE, Profile.empty(other))
    with pytest.raises(ValueError, match="another layout"):
        Profile.decode(other, PROFILE.encode_inputs())


def test_profiles_of_equal_layouts_add_up_though_the_objects_differ() -> None:
    again = Layout.decode(LAYOUT.encode())
    assert merged(again, [PROFILE, PROFILE]).rows == 8000


@pytest.mark.parametrize("data", [b"", b"\x63rest"])
def test_an_unknown_format_is_refused_with_both_formats_named(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read; this version reads formats to 2"):
        Profile.decode(LAYOUT, data)


@settings(SAME, max_examples=100)
@given(st.data(), st.sampled_from([1, 2]), st.booleans())
def test_damaged_bytes_are_refused_or_read_but_never_crash(data: st.DataObject, format_: int, labels: bool) -> None:
    import zstandard

    layout, stored = OLD_LAYOUT, [bytes.fromhex(text) for text in OLD_1]
    if format_ == 2:
        old = Profile.decode(layout, *stored)
        stored = [old.encode_inputs(), old.encode_outcomes()]
    payload = bytearray(zstandard.ZstdDecompressor().decompress(stored[labels][1:]))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(payload)), st.integers(place, len(payload))))
    stored[labels] = bytes([format_]) + zstandard.compress(bytes(payload[:cut]))
    read = None
    with suppress(ValueError):
        read = Profile.decode(layout, *stored)
        read.encode_inputs(), read.encode_outcomes()
    with suppress(ValueError):
        assert summed(layout, [(stored[0], stored[1])]).rows == (read.rows if read else -1)


def test_cut_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="damaged"):
        Profile.decode(LAYOUT, PROFILE.encode_inputs()[:-5])


def test_a_profile_stored_by_format_1_stays_readable() -> None:
    layout = Layout({"features.x": NumericLayout(np.array([1.0, 2.0])), "features.c": CategoryLayout(("a",))})
    profile = Profile.decode(layout, bytes.fromhex(FORMAT_1))
    number, text = profile.columns["features.x"], profile.columns["features.c"]
    assert (profile.rows, profile.first_us, profile.last_us) == (4, -1, 5)
    assert isinstance(number, NumericProfile)
    assert number.counts.tolist() == [1, 0, 2]
    assert (number.mean, number.minimum, number.maximum, number.missing) == (2.0, 0.5, 3.5, 1)
    assert number.sums.tolist() == [0.5, 0.0, 5.5]
    assert isinstance(text, CategoryProfile)
    assert text.counts.tolist() == [2, 2]
    assert text.new == {"ß": 2}


def test_profiles_stored_by_format_1_are_read_added_up_and_stored_again_like_new_ones() -> None:
    number = range(60)
    rows = {
        "timestamp": pa.array([i * 50_000_000 for i in number], pa.timestamp("us", tz="UTC")),
        "features.x": [None if i % 11 == 3 else i * 0.37 - 4.0 for i in number],
        "features.tied": [float(i % 7) + (0.25 if i % 5 == 0 else 0.0) for i in number],
        "features.letter": ["abcdefgh"[i % 8] for i in number],
        "features.text": [None if i % 6 == 0 else str(i) for i in number],
        "prediction": [i * 0.5 for i in number],
        "ground_truth": [None if i % 9 == 0 else i * 0.5 + (i % 4) - 1.5 for i in number],
        "group.sex": ["F" if i % 3 else "M" for i in number],
    }
    new = profile_batches([pa.record_batch(rows)], OLD_LAYOUT)
    inputs, outcomes = (bytes.fromhex(text) for text in OLD_1)
    for old in (Profile.decode(OLD_LAYOUT, inputs, outcomes), summed(OLD_LAYOUT, [(inputs, outcomes)])):
        assert (old.encode_inputs(), old.encode_outcomes()) == (new.encode_inputs(), new.encode_outcomes())
    three = summed(OLD_LAYOUT, [(inputs, outcomes), (new.encode_inputs(), outcomes), (inputs, new.encode_outcomes())])
    assert three.columns["features.letter"].counts.tolist() == [24, 24, 132]
    assert three.outcomes["all"].tolist() == (3 * new.outcomes["all"]).tolist()


def test_the_empty_profile_adds_nothing() -> None:
    total = merged(LAYOUT, [Profile.empty(LAYOUT), PROFILE, Profile.empty(LAYOUT)])
    assert total.rows == PROFILE.rows
    assert total.columns["features.far"].mean == PROFILE.columns["features.far"].mean  # type: ignore[union-attr]
    assert merged(LAYOUT, []).columns["features.gaps"].completeness == 1.0


def test_positions_are_the_means_of_the_cells_and_their_middles_where_empty() -> None:
    layout = NumericLayout(np.array([0.0, 2.0, 4.0]))
    column = NumericProfile(np.array([0, 2, 0, 1]), np.array([0.0, 3.0, 0.0, 9.0]), count=3)
    assert column.positions(layout).tolist() == [0.0, 1.5, 3.0, 9.0]
    tied = NumericLayout(np.array([1.0, 3.0]), tied=True)
    column = NumericProfile(np.array([0, 5, 2, 0, 0]), np.array([0.0, 5.0, 5.0, 0.0, 0.0]), count=7)
    assert column.positions(tied).tolist() == [1.0, 1.0, 2.5, 3.0, 3.0]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0])
def test_quantiles_are_those_of_the_rows_within_a_cell(share: float) -> None:
    values = np.random.default_rng(4).normal(size=20_000)
    batch = pa.record_batch({"features.x": values})
    layout = plan_layout([batch], mixed_columns(batch))
    bins, column = layout.columns["features.x"], profile_batches([batch], layout).columns["features.x"]
    assert isinstance(bins, NumericLayout)
    assert isinstance(column, NumericProfile)
    quantile = column.quantile(share, bins)
    assert quantile is not None
    assert np.mean(values <= quantile) == pytest.approx(share, abs=0.0011)


def test_a_column_without_values_has_no_quantile_and_no_spread() -> None:
    layout = NumericLayout(np.array([1.0]))
    column = NumericProfile(np.zeros(2, np.int64), np.zeros(2))
    assert column.quantile(0.5, layout) is None
    assert column.standard_deviation == 0.0


FORMAT_1 = (
    "0128b52ffd20669d0200e403040101010a0002050400100e010000000304000000020101010202020101c9d6bca6c20c0000"
    "e03f00000c40124016407b2231223a7b22c39f223a327d7d0800432d0086a005100082a40461338204c50e"
)

OLD_LAYOUT = Layout(
    {
        "features.x": NumericLayout(np.array([-3.0, 0.0, 9.0, 12.0])),
        "features.tied": NumericLayout(np.array([1.0, 2.0, 4.5]), tied=True),
        "features.letter": CategoryLayout(("a", "b")),
        "features.text": NumericLayout(np.empty(0)),
        "prediction": NumericLayout(np.array([5.0, 20.0])),
        "ground_truth": NumericLayout(np.array([5.0, 20.0])),
    },
    OutcomeLayout("regression", groups={"sex": ("F", "M")}, residual_edges=(-1.0, 0.0, 1.0)),
)
OLD_1 = (
    (
        "0128b52ffd605e00f50700040d3c01000180b6abfd150105131209382b01000000363c3c323c0600000a0001020103071707"
        "0e09070208121008082c320a1e140206a2bab2fbf30389a5cd939a0386e2de978401a1a8ffa2de0685ffcee4e805c698b4e4"
        "ee060010c000f07f0014ae47e17ad431400019f0ff803d405013cf8a460201c06866ee3f0015c050f28b256ff9a040323333"
        "3333d36d40c092b14048e17a14aec725c0285c8fc2f5406a40e04056408036f07e40877c839940e993bb7b7b2232223a7b22"
        "63223a382c226465223a372c22666768223a377d7d1400400438634a1b3371e3b285314b18171898a0b800cec5c507175792"
        "812681ebc0b9047783d100111ac009"
    ),
    (
        "0128b52ffd6057010d0a00040e3c01000180b6abfd150101030302100000430c7335070000000101081b1200010201010101"
        "1f09010e0d0d0d0a0a0a0a04030303003f406a82f156f63914c0bc957d0ea96aaf40008031007c804a00f8bfc0d050404a61"
        "c08840f8ce34ae7c604100c05ac000f88f403f623973f31621004a4072ca485dddf4f73f1c400035c0001ac0001a80330000"
        "4449a059c08280a4c790377c5900546088405168703fb3a41b8043405f59ce110b58f22a002b4031e8410068004fad6093f4"
        "3d003b606e40b270099cce24fa3f2a4047c4e92d4973d62e1414002e18c0f83f0012400c793920708328cd0140e0060903cf"
        "38d82cf986c4ba80710e3fb021625c6ce081dfc001123c6e5bc240075a034f0c89f1e281337866c7b8d8e01bda3881eb066a"
        "fdee780d22740c170f7e7746de3662ec8177701184e8518d9b199d831b86729e"
    ),
)
