"""The pipeline: order, failed rows, bounds, and how it ends."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ltstore.encode import PixelEncoder, iter_encoded
from ltstore.errors import ConfigError, ImageError
from ltstore.types import ByteArray, FloatArray, RowStatus
from support.images import SumEncoder, array_source, corrupt


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ltstore-decode")]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 5), st.sets(st.integers(0, 39)))
def test_rows_do_not_depend_on_batches_or_workers(n: int, batch: int, workers: int, bad: set[int]) -> None:
    source = array_source(40, {i: corrupt(str(i)) for i in bad})
    encoder = PixelEncoder(4, 4)
    whole = encoder.encode(source.pixels.reshape(40, -1))
    at = 0
    for part in iter_encoded(source, encoder, stop=n, batch_size=batch, n_workers=workers):
        assert part.start == at
        for i, row in enumerate(part.X, part.start):
            failed = i in bad
            assert part.status[i - at] == (RowStatus.CORRUPT if failed else RowStatus.OK)
            assert (part.errors[i - at] is not None) == failed
            assert (row == (0 if failed else whole[i])).all()
        at += len(part.X)
    assert at == n


def test_a_part_of_a_source() -> None:
    source = array_source(20)
    parts = list(iter_encoded(source, PixelEncoder(4, 4), start=7, stop=13, batch_size=4))
    assert [(part.start, len(part.X)) for part in parts] == [(7, 4), (11, 2)]
    assert list(iter_encoded(source, PixelEncoder(4, 4), start=5, stop=5)) == []
    for start, stop in ((-1, 3), (5, 4), (0, 21)):
        with pytest.raises(ConfigError, match=r"outside the source's 0\.\.20"):
            iter_encoded(source, PixelEncoder(4, 4), start=start, stop=stop)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"n_workers": -1}, {"batch_size": "many"}, {"n_workers": 1.5}]
)
def test_sizes_are_checked_at_the_call(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match='must be a positive integer or "auto"'):
        iter_encoded(array_source(3), PixelEncoder(4, 4), **wrong)  # type: ignore[arg-type]


def test_progress_counts_rows_and_seconds() -> None:
    calls: list[tuple[int, dict[str, float]]] = []
    list(
        iter_encoded(
            array_source(10),
            SumEncoder(),
            batch_size=4,
            progress=lambda n, seconds: calls.append((n, dict(seconds))),
        )
    )
    assert [n for n, _ in calls] == [4, 4, 2]
    assert all(
        set(seconds) == {"read", "decode", "encode"} and min(seconds.values()) >= 0 for _, seconds in calls
    )


def test_only_readable_rows_reach_the_encoder() -> None:
    encoder = SumEncoder()
    source = array_source(9, {i: corrupt() for i in (0, 4, 5, 6, 7)})
    parts = list(iter_encoded(source, encoder, batch_size=4))
    assert encoder.batches == [3, 1]
    assert [part.status.tolist() for part in parts] == [[2, 0, 0, 0], [2, 2, 2, 2], [0]]


class Faulty(SumEncoder):
    """Preprocessing or encoding goes wrong at one image."""

    def __init__(self, error: Exception | None = None, bad_row: float | None = None) -> None:
        super().__init__()
        self.error, self.bad_row, self.seen = error, bad_row, 0

    def preprocess(self, image: Image.Image) -> ByteArray:
        if self.error is not None and image.getpixel((0, 0)) == image_of_interest:
            raise self.error
        return super().preprocess(image)

    def encode(self, batch: ByteArray) -> FloatArray:
        X = super().encode(batch)
        if self.bad_row is not None:
            X[1, 0] = self.bad_row
        return X


image_of_interest = tuple(array_source(6).pixels[3, 0, 0].tolist())


@pytest.mark.parametrize(
    "error, status",
    [
        (ValueError("zero width"), RowStatus.CORRUPT),
        (OSError("truncated"), RowStatus.CORRUPT),
        (ZeroDivisionError("aspect"), RowStatus.CORRUPT),
        (RuntimeError("bad shape"), RowStatus.CORRUPT),
        (ImageError("x: huge", RowStatus.TOO_LARGE), RowStatus.TOO_LARGE),
    ],
)
def test_preprocessing_of_one_image_fails_that_row_alone(error: Exception, status: RowStatus) -> None:
    (part,) = iter_encoded(array_source(6), Faulty(error))
    assert part.status.tolist() == [0, 0, 0, status, 0, 0]
    assert str(error) in str(part.errors[3])
    assert (part.X[3] == 0).all()
    assert (part.X[4] != 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_embedding_that_is_not_finite_is_that_rows_status(value: float) -> None:
    (part,) = iter_encoded(array_source(4), Faulty(bad_row=value))
    assert part.status.tolist() == [0, RowStatus.NON_FINITE, 0, 0]
    assert "NaN or Inf in 1 of 2 features" in str(part.errors[1])
    assert np.isfinite(part.X).all()


@pytest.mark.parametrize("error", [TypeError("bug"), KeyError("bug"), MemoryError("bug"), OSError(24, "bug")])
def test_a_bug_in_a_source_ends_the_run_with_its_own_exception(error: Exception) -> None:
    source = array_source(400, {137: error})
    rows = 0
    with pytest.raises(type(error), match="bug"):
        for part in iter_encoded(source, SumEncoder(), batch_size=8, n_workers=3):
            rows += len(part.X)
    assert rows == 136
    assert not decoders()


def test_a_bug_in_preprocessing_ends_the_run() -> None:
    with pytest.raises(TypeError, match="bug"):
        list(iter_encoded(array_source(6), Faulty(TypeError("bug"))))
    assert not decoders()


def test_the_encoder_failing_or_interrupted_ends_the_run_and_its_threads() -> None:
    class Failing(SumEncoder):
        error: type[BaseException] = RuntimeError

        def encode(self, batch: ByteArray) -> FloatArray:
            if len(self.batches) == 2:
                raise self.error("stop")
            return super().encode(batch)

    for kind in (RuntimeError, KeyboardInterrupt):
        encoder = Failing()
        encoder.error = kind
        with pytest.raises(kind):
            list(iter_encoded(array_source(300), encoder, batch_size=5, n_workers=2))
        assert not decoders()


def test_leaving_early_stops_the_threads() -> None:
    batches = iter_encoded(array_source(500), SumEncoder(), batch_size=5, n_workers=2)
    next(batches)
    batches.close()
    assert not decoders()


def test_reading_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    source = array_source(1000)
    read: list[int] = []
    fetch = source.fetch
    monkeypatch.setattr(source, "fetch", lambda i: (read.append(i), fetch(i))[1])
    batches = iter_encoded(source, SumEncoder(), batch_size=10, n_workers=2)
    next(batches)
    time.sleep(0.2)
    assert len(read) <= 10 * 4
    batches.close()


def test_decoding_goes_on_while_the_encoder_works() -> None:
    source = array_source(6)
    encoding = threading.Event()
    seen: list[bool] = []
    fetch = source.fetch

    def slow_fetch(i: int) -> ByteArray:
        if i >= 4:
            seen.append(encoding.wait(2))
        return fetch(i)

    source.fetch = slow_fetch  # type: ignore[method-assign]

    class Slow(SumEncoder):
        def encode(self, batch: ByteArray) -> FloatArray:
            encoding.set()
            return super().encode(batch)

    list(iter_encoded(source, Slow(), batch_size=2, n_workers=1))
    assert seen == [True, True]


def test_a_foreign_source() -> None:
    """A source that is only a Protocol (no fetch) works too."""
    base = array_source(5)

    class Foreign:
        n_samples, class_names, labels, digest = base.n_samples, base.class_names, base.labels, base.digest
        key, read = base.key, base.read

    (part,) = iter_encoded(Foreign(), PixelEncoder(4, 4))
    assert (PixelEncoder(4, 4).encode(base.pixels.reshape(5, -1)) == part.X).all()
