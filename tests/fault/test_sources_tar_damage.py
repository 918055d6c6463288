"""Tars that are cut short, damaged or made to do harm: rows are kept with the reason, nothing hangs or grows."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.errors import ImageError, LtstoreError, SourceError
from ltstore.sources import TarSource
from ltstore.sources.tar_index import BoundedFile, _plain_member, iter_members
from ltstore.types import RowStatus
from support.images import encoded, picture
from support.shards import sample, write_shard

BREAKS_OFF = "s.tar: the tar breaks off here, what follows is not known: "


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_shard(tmp_path / "s.tar", [member for i in range(3) for member in sample(f"{i}", i, i)])


def starts(path: Path) -> list[int]:
    """Where the header of each member begins."""
    with tarfile.open(path) as archive:
        return [member.offset for member in archive]


def states(source: TarSource) -> list[str]:
    """What each row is: "ok", or its error."""
    found = []
    for row in range(source.n_samples):
        try:
            source.read(row)
            found.append("ok")
        except ImageError as err:
            found.append(str(err))
    return found


def test_a_tar_cut_in_an_image_keeps_that_row_and_one_for_the_rest(whole: Path) -> None:
    last = starts(whole)[4]
    whole.write_bytes(whole.read_bytes()[: last + 512 + 100])
    source = TarSource(whole)
    assert states(source)[:3] == ["ok", "ok", "s.tar/2: the tar ends in the middle of it"]
    assert states(source)[3].startswith(BREAKS_OFF)
    assert source.labels.tolist() == [0, 1, -1, -1]
    assert source.key(3) == "s.tar"


@pytest.mark.parametrize("inside", [0, 200])
def test_a_tar_cut_between_members_or_in_a_header_says_so(whole: Path, inside: int) -> None:
    whole.write_bytes(whole.read_bytes()[: starts(whole)[4] + inside])
    assert [state[: len(BREAKS_OFF)] for state in states(TarSource(whole))] == ["ok", "ok", BREAKS_OFF]


def test_a_damaged_header_ends_the_tar_with_a_row(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    at = starts(whole)[2]
    data[at + 3] ^= 0xFF
    whole.write_bytes(data)
    assert states(TarSource(whole)) == ["ok", f"{BREAKS_OFF}damaged header at byte {at} of {len(data)}"]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\0" * 10240])
def test_a_file_that_is_no_tar_is_a_row_beside_others(whole: Path, content: bytes) -> None:
    (whole.parent / "0.tar").write_bytes(content)
    source = TarSource(whole.parent)
    assert [state for state in states(source) if state != "ok"] == (
        [] if content.startswith(b"\0") else [states(source)[0]]  # zeros are an empty tar
    )
    assert states(source)[-3:] == ["ok"] * 3
    with pytest.raises(SourceError, match=r"no image in the 1 tars of .*0.tar"):
        TarSource(whole.parent / "0.tar")


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: str | dict[str, str]) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_links_devices_and_sparse_files_are_rows_without_an_image(tmp_path: Path) -> None:
    members = [
        (entry("a.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (entry("b.jpg", tarfile.LNKTYPE, linkname="c.jpg"), b""),
        (entry("d.jpg", tarfile.CHRTYPE), b""),
        (entry("e.jpg", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}), b"x"),
        *sample("c", 0),
    ]
    source = TarSource(write_shard(tmp_path / "s.tar", members, format=tarfile.PAX_FORMAT))
    link, sparse = "stored as a link or device: store its bytes", "stored as a sparse file: store its bytes"
    assert states(source) == [*(f"s.tar/{n}: {link}" for n in "abd"), f"s.tar/e: {sparse}", "ok"]


def header(name: str, size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header with a size field of one's own, and its checksum right."""
    made = tarfile.TarInfo(name)
    made.type = kind
    block = bytearray(made.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HUGE = b"\x80" + (2**62).to_bytes(11, "big")
NEGATIVE = b"\xff" + (2**88 - 512).to_bytes(11, "big")


@pytest.mark.parametrize("size", [HUGE, NEGATIVE, b"\x80" + b"\xff" * 11, b"77777777777\0"])
@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE]
)
def test_sizes_of_another_world_take_no_memory_and_end(tmp_path: Path, size: bytes, kind: bytes) -> None:
    good = write_shard(tmp_path / "s.tar", sample("a", 0)).read_bytes()
    body = good[: good.index(b"a.cls") + 1024]  # without the end mark
    (tmp_path / "s.tar").write_bytes(body + header("b.jpg", size, kind) + b"\0" * 2048)
    tracemalloc.start()
    try:
        found = states(TarSource(tmp_path / "s.tar"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found[0] == "ok"
    assert len(found) > 1
    assert "ok" not in found[1:]
    assert peak < 8 << 20


def test_a_chain_of_headers_without_end(tmp_path: Path) -> None:
    record = b"11 path=a\n".ljust(512, b"\0")
    chain = (header("x", b"%011o\0" % 10, tarfile.XHDTYPE) + record) * 3000
    good = write_shard(tmp_path / "s.tar", sample("a", 0)).read_bytes()
    (tmp_path / "s.tar").write_bytes(good[: good.index(b"a.cls") + 1024] + chain)
    assert states(TarSource(tmp_path / "s.tar"))[0] == "ok"


def test_any_flipped_byte_gives_rows_or_one_line(whole: Path) -> None:
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, starts(whole)[-1] + 1024, 200):
        hurt = bytearray(data)
        hurt[at] ^= int(rng.integers(1, 256))
        whole.write_bytes(hurt)
        try:
            source = TarSource(whole)
        except LtstoreError as err:
            lines = str(err).splitlines()
        else:
            lines = [*states(source), *map(source.key, range(source.n_samples))]
        assert all(line.isprintable() for line in lines)


def members_of(data: bytes) -> list[object]:
    """What the members of a tar are, and how it breaks off."""
    found: list[object] = []
    try:
        found.extend(
            (each.name, each.size, each.offset, each.offset_data, each.type, each.issparse())
            for each in iter_members(BoundedFile(io.BytesIO(data)))
        )
    except tarfile.ReadError as err:
        found.append(str(err))
    return found


def made_tar(form: int) -> bytes:
    """A tar of files, long, odd and empty names, directories, links, and headers for what follows them."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form, pax_headers={}) as archive:
        for i, name in enumerate(
            ["a.jpg", "d/b.cls", "é.jpg", "n" * 100, "p/" * 60 + "q.jpg", "d", "l", "a.jpg"]
        ):
            made = entry(name, {"d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE}.get(name, tarfile.REGTYPE))
            made.uid, made.mtime = 8**6 + i, 1_600_000_000
            made.size = 700 * i if made.isreg() else 0
            archive.addfile(made, io.BytesIO(bytes(made.size)))
    return sink.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_that_are_read_without_tarfile_say_what_it_says(
    form: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, whole = np.random.default_rng(form), made_tar(form)
    cases = [whole, whole[:-512], whole[: 512 * 5 + 9], whole + whole]
    cases.append(tarfile.TarInfo.create_pax_global_header({"path": "same"}) + whole)
    headers = [each[2] for each in members_of(whole) if isinstance(each, tuple)]
    letters = np.frombuffer(b"\0 0017/-ax\x80\xff", np.uint8)
    for _ in range(1500):  # headers that are odd and, mostly, have the right sum all the same
        hurt = bytearray(whole)
        at = int(rng.choice(headers))
        for where in rng.choice([rng.integers(0, 512), rng.integers(100, 160), 156], 1 + int(rng.integers(3))):
            hurt[at + int(where)] = int(rng.choice(letters))
        if rng.random() < 0.8:
            hurt[at + 148 : at + 156] = b" " * 8
            hurt[at + 148 : at + 156] = b"%06o\0 " % sum(hurt[at : at + 512])
        cases.append(bytes(hurt))
    calls = 0

    def counting(*words: Any) -> Any:
        nonlocal calls
        found = _plain_member(*words)
        calls += found is not None
        return found

    monkeypatch.setattr("ltstore.sources.tar_index._plain_member", counting)
    quick = [*map(members_of, cases)]
    assert calls > 1500
    monkeypatch.setattr("ltstore.sources.tar_index._plain_member", lambda *_: None)
    assert quick == [*map(members_of, cases)]


def test_a_gigabyte_is_no_image(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [("b.jpg", encoded(picture()))])
    with path.open("r+b") as handle:
        handle.write(header("big.jpg", b"%011o\0" % ((1 << 30) + 1)))
        handle.truncate(512 + (1 << 30) + 1024 + 10240)  # a hole: no disk is used
    source = TarSource(path)
    with pytest.raises(ImageError, match="bytes exceed 1 GiB") as caught:
        source.read(0)
    assert caught.value.status == RowStatus.TOO_LARGE
