"""Packed strings are the strings."""

from __future__ import annotations

import pickle
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltstore.sources.texts import PackedTexts

NAMES = st.lists(st.text(st.characters(codec="utf-8"), max_size=6))


@given(NAMES)
def test_packing_gives_the_same_strings(names: list[str]) -> None:
    for packed in (PackedTexts.of(names), PackedTexts.of_arrow(pa.array(names, pa.string()))):
        assert list(packed) == names
        assert packed[1:-1] == names[1:-1]
        assert list(pickle.loads(pickle.dumps(packed))) == names  # noqa: S301


def test_arrow_columns_in_chunks_and_slices() -> None:
    column = pa.chunked_array([["a", "bc"], pa.array(["no", "", "déf", "no"])[1:3], pa.array([], pa.string())])
    assert list(PackedTexts.of_arrow(column)) == ["a", "bc", "", "déf"]


def test_names_that_are_not_utf8_and_positions_outside() -> None:
    packed = PackedTexts.of(["caf\udce9", "x"])
    assert packed[0] == "caf\udce9"
    assert packed[-1] == "x"
    for outside in (2, -3):
        with pytest.raises(IndexError, match=f"text {outside} of 2"):
            packed[outside]


def test_memory_is_the_bytes_and_eight_each() -> None:
    tracemalloc.start()
    try:
        packed = PackedTexts.of(f"{row:09d}" for row in range(100_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(packed) == 100_000
    assert held < 20 * 100_000  # 9 + 8, and what a growing bytearray has to spare
