"""Paths that come one by one are answered one by one, in order; paths that come fast go in batches."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ltstore.encode import iter_arriving, iter_encoded, open_encoder
from ltstore.errors import ConfigError, SourceError
from ltstore.sources import ImagesSource, iter_paths
from ltstore.types import RowStatus
from support.images import picture

WAIT = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        picture(i).save(tmp_path / f"{i:02}.png")
    return tmp_path


def test_it_gives_what_a_folder_gives(folder: Path) -> None:
    encoder = open_encoder("pixels:6")
    (folder / "05.png").write_bytes(b"not an image")
    paths = [str(folder / f"{i:02}.png") for i in range(12)]
    paths.insert(3, str(folder / "absent.png"))
    batches = list(iter_arriving(paths, encoder, batch_size=4, n_workers=3))
    assert [key for keys, _ in batches for key in keys] == paths
    assert [batch.start for _, batch in batches] == np.cumsum(
        [0, *(len(keys) for keys, _ in batches[:-1])]
    ).tolist()
    assert max(len(keys) for keys, _ in batches) <= 4
    X = np.concatenate([batch.X for _, batch in batches])
    status = np.concatenate([batch.status for _, batch in batches])
    errors = [error for _, batch in batches for error in batch.errors]
    assert status[3] == RowStatus.MISSING
    assert "absent.png" in str(errors.pop(3))
    expected = list(iter_encoded(ImagesSource(folder), encoder))
    np.testing.assert_array_equal(np.delete(X, 3, axis=0), np.concatenate([batch.X for batch in expected]))
    np.testing.assert_array_equal(np.delete(status, 3), np.concatenate([batch.status for batch in expected]))
    assert [error is None for error in errors] == [i != 5 for i in range(12)]


def test_a_path_is_answered_before_the_next_one_comes(folder: Path) -> None:
    answered = threading.Event()

    def paths() -> Iterator[str]:
        for i in range(3):
            yield str(folder / f"{i:02}.png")
            assert answered.wait(WAIT), "it waits for more paths before it answers"
            answered.clear()

    keys = []
    for found, _ in iter_arriving(paths(), open_encoder("pixels:6"), batch_size=32):
        keys += found
        answered.set()
    assert len(keys) == 3


def test_fast_paths_go_in_batches_and_are_not_read_far_ahead(folder: Path) -> None:
    encoder, taken = open_encoder("pixels:6"), 0

    def paths() -> Iterator[str]:
        nonlocal taken
        for _ in range(10_000):
            taken += 1
            yield str(folder / "00.png")

    sizes, before = [], []
    for i, (keys, _) in enumerate(iter_arriving(paths(), encoder, batch_size=8, n_workers=2)):
        sizes.append(len(keys))
        before.append(taken - sum(sizes))
        if i == 20:
            break
        threading.Event().wait(0.05)  # the encoder is slow
    assert max(sizes) == 8
    assert np.mean(sizes[2:]) > 6
    assert max(before) <= 2 * 8 + 2 * 2


def test_leaving_early_stops_the_threads(folder: Path) -> None:
    def paths() -> Iterator[str]:
        while True:
            yield str(folder / "00.png")

    before = set(threading.enumerate())
    found = iter_arriving(paths(), open_encoder("pixels:6"), batch_size=2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT)
        assert not thread.is_alive(), thread.name


def test_what_the_paths_raise_comes_after_the_answers(folder: Path) -> None:
    def paths() -> Iterator[str]:
        yield str(folder / "00.png")
        raise SourceError("the pipe is gone")

    keys = []
    with pytest.raises(SourceError, match="the pipe is gone"):
        for found, _ in iter_arriving(paths(), open_encoder("pixels:6")):
            keys += found
    assert len(keys) == 1
    assert list(iter_arriving([], open_encoder("pixels:6"))) == []
    with pytest.raises(ConfigError, match="batch_size"):
        iter_arriving([], open_encoder("pixels:6"), batch_size=0)


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_paths_come_back_byte_for_byte(end: bytes) -> None:
    names = [
        b"a.png",
        "žluť 漢.png".encode(),
        b"\xff\xfe.png",
        b' "quoted", with comma.png ',
        b"x" * 5000,
        b"cr\r",
    ]
    names += [b"new\nline"] if end == b"\0" else []
    for last in (end, b""):
        stream = io.BytesIO(end.join(names) + last)
        assert [os.fsencode(path) for path in iter_paths(stream, end)] == names
        slow = io.BytesIO(end.join([*names[:2], b"", *names[2:]]) + last)  # a byte at a time, and an empty line
        slow.read = lambda _, read=slow.read: read(1)  # type: ignore[method-assign]
        assert [os.fsencode(path) for path in iter_paths(slow, end)] == names


def test_a_path_is_there_as_soon_as_its_end_is() -> None:
    reader, writer = os.pipe()
    with io.FileIO(reader) as stream, io.FileIO(writer, "w") as sender:
        paths = iter_paths(stream)
        sender.write(b"one\ntw")
        assert next(paths) == "one"
        sender.write(b"o\n")
        assert next(paths) == "two"


def test_a_list_with_the_other_end_is_refused_and_not_read_whole() -> None:
    stream = io.BytesIO(b"a.png\0" * 1_000_000)
    with pytest.raises(SourceError, match=r"ended by NUL \(--null\)\?"):
        list(iter_paths(stream))
    assert stream.tell() < 2_000_000
    with pytest.raises(SourceError, match=r"ended by newlines \(no --null\)\?"):
        list(iter_paths(io.BytesIO(b"a.png\n" * 1_000_000), b"\0"))
