"""Counts that merge to the same in any order, and sums that must add up."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.logs import line_counts
from pipelines.logs.line_counts import Account, LineCounts, TimeHistogram


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 500)), min_size=1, max_size=6), st.randoms())
def test_histograms_merge_in_any_order(parts, rng):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_counts, "MAX_BUCKETS", 7)
        whole = TimeHistogram.of(np.array([t for part in parts for t in part], np.int64))
        rng.shuffle(parts)
        merged = functools.reduce(
            TimeHistogram.merge, [TimeHistogram.of(np.array(p, np.int64)) for p in parts]
        )
    assert (merged.level, merged.buckets.tolist(), merged.counts.tolist()) == (
        whole.level, whole.buckets.tolist(), whole.counts.tolist())  # fmt: skip
    assert len(whole.buckets) <= 7


@settings(max_examples=100)
@given(st.lists(st.integers(0, 1000), min_size=1), st.floats(0.01, 1))
def test_quantile_is_the_first_time_that_leaves_the_share_before(times, share):
    found = TimeHistogram.of(np.array(times)).quantile(share)
    assert sum(t < found for t in times) >= share * len(times) - 1e-6
    assert sum(t < found - 1 for t in times) < share * len(times)


def test_counts_merge():
    one, two = LineCounts(3, 2), LineCounts(4, 4)
    one.rejected["bad"] = 1
    one.examples["bad"] = "file at 7"
    total = two.merge(one)
    assert (total.total, total.events, total.reject_rate) == (7, 6, pytest.approx(1 / 7))
    assert total.top_reasons() == "bad: 1 (such as file at 7)"


def test_sums_are_checked():
    fine = Account(total=3, used=1, filtered={"a": 1}, rejected={"b": 1})
    fine.check("source")
    with pytest.raises(RuntimeError, match="source: 4 lines came in, 3 are accounted for"):
        dataclasses.replace(fine, total=4).check("source")
