"""What every location does alike: files, S3 through obstore, any file system of fsspec."""

from __future__ import annotations

import pickle
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ltstore.errors import BackendUnavailableError, ConfigError, StoreBusyError, StoreExistsError
from ltstore.storage import FileLocation, Location, ObjectLocation, is_url, open_location, write_json
from support.object_server import ObjectServer

KINDS = ("path", "s3", "fsspec-memory", "fsspec-local")


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Location]:
    """Makes new, empty locations."""
    if request.param == "s3":
        server: ObjectServer = request.getfixturevalue("server")
        return lambda: server.location(secrets.token_hex(6))
    if request.param == "fsspec-memory":
        return lambda: open_location(f"memory://{secrets.token_hex(6)}/x")
    if request.param == "fsspec-local":
        return lambda: open_location(f"local://{tmp_path}/{secrets.token_hex(6)}")
    return lambda: open_location(tmp_path / secrets.token_hex(6))


def test_nothing_is_there_at_first(make: Callable[[], Location]) -> None:
    place = make()
    assert not place.exists()
    assert place.child_names() == []
    assert not (place / "a" / "b").exists()
    for read in (place.read, place.view, (place / "a").read):
        with pytest.raises(FileNotFoundError):
            read()
    (place / "a").remove()  # fine if there is none


@pytest.mark.parametrize("n_bytes", [0, 1, 1000, (8 << 20) + 17])
def test_what_is_written_is_read(make: Callable[[], Location], n_bytes: int) -> None:
    data = bytes(range(256)) * (n_bytes // 256 + 1)
    data = data[:n_bytes]
    place = make() / "sub" / "file"
    place.write([data[: n_bytes // 3], memoryview(data)[n_bytes // 3 :]])
    assert place.exists()
    assert place.read() == data
    assert place.read(10) == data[:10]
    assert place.view().tobytes() == data
    assert not place.view().flags.writeable
    if isinstance(place, ObjectLocation):
        end, size = place.read_end(7)
        assert (end.tobytes(), size) == (data[-7:] if n_bytes else b"", n_bytes) or n_bytes == 0
        spans = [(0, n_bytes // 2), (n_bytes // 2, n_bytes)] if n_bytes > 1 else []
        assert [piece.tobytes() for piece in place.read_ranges(spans)] == [data[a:b] for a, b in spans]
    place.write([b"new"])
    assert place.read() == b"new"
    place.remove()
    assert not place.exists()


def test_names(make: Callable[[], Location]) -> None:
    place = make()
    for name in ("b", "a", "sub/x", "sub/deep/y", "été"):
        at = place
        for part in name.split("/"):
            at = at / part
        at.write([name.encode()])
    assert place.child_names() == ["a", "b", "sub", "été"]
    assert (place / "sub").child_names() == ["deep", "x"]
    assert (place / "su").child_names() == []
    assert not (place / "sub").exists()
    assert (place / "sub" / "x").name == "x"
    assert (place / "sub" / "x").parent.name == "sub"
    assert str(place / "sub" / "x") == f"{place}/sub/x"
    assert place.leftovers() == []
    assert (place / "été").read().decode() == "été"


def test_a_location_can_be_pickled(make: Callable[[], Location]) -> None:
    if "memory" in str(make()):
        pytest.skip("memory is of one process")
    place = make()
    write_json(place / "a", {"b": 1})
    assert pickle.loads(pickle.dumps(place / "a")).read() == (place / "a").read()  # noqa: S301


def test_of_two_creators_one_succeeds(make: Callable[[], Location]) -> None:
    place = make() / "root"
    place.create(b"first")
    with pytest.raises(StoreExistsError, match="is there already"):
        place.create(b"second")
    assert place.read() == b"first"


def test_a_group_replaces_all_there_was(make: Callable[[], Location]) -> None:
    place = make() / "group"
    place.write_group({"c/0": [b"12", b"3"], "zarr.json": [b"{}"]})
    assert ((place / "c" / "0").read(), (place / "zarr.json").read()) == (b"123", b"{}")
    place.write_group({"c/0": [b"4"], "zarr.json": [b"[]"]})
    assert ((place / "c" / "0").read(), (place / "zarr.json").read()) == (b"4", b"[]")
    place.remove_group("zarr.json")
    assert not (place / "c" / "0").exists()
    if isinstance(place, FileLocation) or str(place).startswith("s3://"):  # fsspec keeps empty directories
        assert place.parent.child_names() == []
    place.remove_group("zarr.json")  # fine if there is nothing
    assert place.parent.remove_leftovers() == []


def test_one_writer_at_a_time(make: Callable[[], Location]) -> None:
    place = make()
    place.make_directory()
    lock = place.lock()
    assert lock.held
    with pytest.raises(StoreBusyError, match=r"is being written by process \d+ on "):
        place.lock()
    (place / "other").make_directory()
    (place / "other").lock().release()
    lock.release()
    lock.release()
    assert not lock.held
    place.lock().release()
    assert place.child_names() in ([], ["other"])


def test_of_many_takers_one_holds_the_lock(make: Callable[[], Location]) -> None:
    place = make()
    if isinstance(place, ObjectLocation) and "s3://" not in str(place):
        pytest.skip("fsspec has no conditional writes: one writer is the user's own care")
    place.make_directory()
    gate, held, refused = threading.Barrier(6), [], []

    def take() -> None:
        gate.wait()
        try:
            held.append(place.lock())
        except StoreBusyError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    held[0].release()


def test_what_is_a_url() -> None:
    assert is_url("s3://bucket/x")
    assert is_url("file:///x")
    assert not is_url("a/b")
    assert not is_url("C:/x")
    assert not is_url(Path("s3://bucket/x"))
    place = open_location("file:///a/b%20c")
    assert isinstance(place, FileLocation)
    assert place.path == Path("/a/b c")
    assert open_location(place) is place
    assert str(open_location("s3://bucket/x/", {"region": "us-east-1"})) == "s3://bucket/x"


def test_what_cannot_be_opened_says_why() -> None:
    with pytest.raises((ConfigError, BackendUnavailableError), match="nosuch://x/y cannot be opened"):
        open_location("nosuch://x/y")
    with pytest.raises(ConfigError, match="s3://bucket cannot be opened"):
        open_location("s3://bucket", {"nonsense": 1})
    with pytest.raises(ConfigError, match="needs a store in a directory"):
        _ = open_location("memory://x").path
    with pytest.raises(ConfigError, match="nothing above it"):
        _ = open_location("memory://x").parent
