"""Blocks: neighbours add up, profiles become blocks, and blocks come back from their bytes."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from monitors.blocks import Blocks
from monitors.kernel import block_counts, profile_batches, profile_buckets
from monitors.layout import Layout, NumericLayout
from monitors.profile import Profile
from tests.monitors.rows import HOUR_US, mixed_layout, mixed_rows

LAYOUT = mixed_layout()
ROWS = mixed_rows(4000, 3)
BLOCKS = block_counts([ROWS], LAYOUT, 6, 0, 72 * HOUR_US)


def test_neighbours_add_up_and_a_last_part_is_left_out() -> None:
    counts = csr_array(np.array([[1, 0], [2, 5], [0, 1], [4, 0], [9, 9]]))
    blocks = Blocks({"x": counts}, {"x": np.array([1, 0, 2, 0, 7])}, np.array([2, 7, 3, 4, 25]))
    pairs = blocks.regrouped(2)
    assert pairs.dense("x").tolist() == [[3, 5], [4, 1]]
    assert pairs.missing["x"].tolist() == [1, 2]
    assert pairs.rows.tolist() == [9, 7]
    assert len(blocks.regrouped(6)) == 0
    with pytest.raises(ValueError, match="at least one"):
        blocks.regrouped(0)


def test_all_blocks_together_are_the_profile_of_the_rows() -> None:
    whole, together = profile_batches([ROWS], LAYOUT), BLOCKS.regrouped(12)
    for name, column in whole.columns.items():
        assert together.dense(name)[0].tolist() == column.counts.tolist(), name
        assert together.missing[name].tolist() == [column.missing], name


def test_profiles_become_blocks_in_their_order() -> None:
    buckets = profile_buckets([ROWS], LAYOUT, 6)
    assert list(buckets) == list(range(0, 72, 6))
    made = Blocks.from_profiles(list(buckets.values()))
    assert made.rows.tolist() == BLOCKS.rows.tolist()
    for name in LAYOUT.columns:
        assert (made.dense(name) == BLOCKS.dense(name)).all(), name
        assert made.missing[name].tolist() == BLOCKS.missing[name].tolist()


def test_profiles_of_two_layouts_do_not_make_blocks() -> None:
    other = Layout({"features.x": NumericLayout(np.array([1.0]))})
    with pytest.raises(ValueError, match="different layouts"):
        Blocks.from_profiles([Profile.empty(LAYOUT), Profile.empty(other)])
    with pytest.raises(ValueError, match="at least one profile"):
        Blocks.from_profiles([])


def test_blocks_come_back_from_their_bytes() -> None:
    again = Blocks.decode(BLOCKS.encode())
    assert again.rows.tolist() == BLOCKS.rows.tolist()
    assert list(again.counts) == list(BLOCKS.counts)
    for name in LAYOUT.columns:
        assert (again.dense(name) == BLOCKS.dense(name)).all()
        assert again.missing[name].tolist() == BLOCKS.missing[name].tolist()
    with pytest.raises(ValueError, match="this version reads formats to 2"):
        Blocks.decode(b"\x63")


def test_chosen_blocks_are_kept_in_order() -> None:
    mask = np.zeros(12, np.bool_)
    mask[[2, 5]] = True
    for which in (mask, [2, 5]):
        kept = BLOCKS.chosen(which)
        assert kept.rows.tolist() == BLOCKS.rows[[2, 5]].tolist()
        assert (kept.dense("features.tied") == BLOCKS.dense("features.tied")[[2, 5]]).all()
