"""NumPy files: `.npy` mapped, `.npz` members mapped where they are stored plainly and streamed where compressed.

Headers are parsed by NumPy's own reader of literals, and believed only where they agree with the size of the file.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ltstore.errors import DataError, SourceError, SourceNotFoundError
from ltstore.transfer.parts import BLOCK_ROWS, Part, StreamedPart

_MAX_HEADER_BYTES = 10_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DEFLATE_LIMIT = 1100  # deflate makes at most 1,032 bytes of one
_CRC_BYTES = 1 << 24


@dataclass(frozen=True)
class NpyHeader:
    """What the header of a `.npy` says, and where its data begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def n_bytes(self) -> int:
        """Size of the data; a Python int, so a hostile shape does not wrap."""
        total = self.dtype.itemsize
        for length in self.shape:
            total *= length
        return total


def read_npy_header(handle: IO[bytes], size: int, where: str) -> NpyHeader:
    """Return the header of the `.npy` that `handle` is at the start of.

    Parameters
    ----------
    handle : binary file
    size : int
        Bytes of header and data together, as the file system or the archive says.
    where : str
        For messages.

    Raises
    ------
    SourceError
        It is no `.npy`, holds Python objects or records, or its shape does not agree with `size`.
    """
    try:
        version = np.lib.format.read_magic(handle)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle, _MAX_HEADER_BYTES)
            prefix = 10
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(handle, _MAX_HEADER_BYTES)
            prefix = 12
        else:
            raise ValueError(f"version {version} is for records only")
    except (ValueError, SyntaxError, TypeError, KeyError, EOFError, RecursionError, MemoryError) as err:
        raise SourceError(f"{where} is not a .npy array that can be read: {str(err).splitlines()[0]}") from err
    if dtype.hasobject or dtype.fields is not None:
        raise SourceError(
            f"{where} holds Python objects or records, which are never unpickled: save plain numbers"
        )
    header = NpyHeader(tuple(shape), dtype, fortran, handle.tell())
    if header.offset < prefix or any(length < 0 for length in shape) or header.offset + header.n_bytes != size:
        raise SourceError(
            f"{where} declares {dtype} of shape {shape}, {header.offset + header.n_bytes} bytes, but has {size}: "
            "it is cut short or damaged"
        )
    return header


def open_file(path: Path) -> IO[bytes]:
    """Open a file for reading; SourceNotFoundError or SourceError name it."""
    try:
        return path.open("rb")
    except FileNotFoundError as err:
        raise SourceNotFoundError(f"no file {path}") from err
    except OSError as err:
        raise SourceError(f"cannot read {path}: {err.strerror or err}") from err


def map_array(path: Path, header: NpyHeader, offset: int = 0) -> NDArray[Any]:
    """Return the array of a file as a read-only map, its data at `offset` beyond the header's own."""
    if not header.n_bytes:
        return np.empty(header.shape, header.dtype)
    try:
        order: Any = "F" if header.fortran else "C"
        return np.memmap(path, header.dtype, "r", offset + header.offset, header.shape, order)
    except (OSError, ValueError) as err:
        raise SourceError(f"cannot map {path}: {err}") from err


def read_npy(path: Path) -> NDArray[Any]:
    """Return a `.npy` as a read-only map; nothing is unpickled."""
    with open_file(path) as handle:
        header = read_npy_header(handle, path.stat().st_size, str(path))
    return map_array(path, header)


class MappedPart(Part):
    """An array that lies in a file as it is. Every read maps anew, so that thousands of parts hold no file open."""

    def __init__(self, path: Path, array: str, header: NpyHeader, offset: int = 0) -> None:
        super().__init__(path, array, header.shape, header.dtype)
        self._header, self._offset = header, offset

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop) as a view of the file."""
        return map_array(self.path, self._header, self._offset)[start:stop]


def npy_part(path: Path) -> MappedPart:
    """Return a `.npy` file as a part."""
    with open_file(path) as handle:
        return MappedPart(path, "", read_npy_header(handle, path.stat().st_size, str(path)))


class _DeflatedPart(StreamedPart):
    """A compressed member of an `.npz`."""

    def __init__(self, path: Path, array: str, header: NpyHeader) -> None:
        super().__init__(path, array, header.shape, header.dtype)
        if header.fortran:
            raise DataError(f"{self.where} is compressed and in Fortran order: save it in C order")
        self._header = header

    def _iter_from(self, start: int) -> Iterator[NDArray[Any]]:
        row_bytes = self.n_features * self.dtype.itemsize
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.array + ".npy") as handle:
                _skip(handle, self._header.offset + start * row_bytes)
                while data := handle.read(BLOCK_ROWS * row_bytes):
                    yield np.frombuffer(data, self._header.dtype).reshape(-1, self.n_features)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as err:
            raise SourceError(f"{self.where} is damaged: {err}") from err


def _skip(handle: IO[bytes], n_bytes: int) -> None:
    while n_bytes > 0:
        data = handle.read(min(n_bytes, _CRC_BYTES))
        if not data:
            raise EOFError("the data end early")
        n_bytes -= len(data)


@dataclass(frozen=True)
class NpzMember:
    """One array of an `.npz`; `offset` is where its `.npy` begins in the archive, None where it is compressed."""

    path: Path
    name: str
    header: NpyHeader
    offset: int | None
    crc: int

    @property
    def where(self) -> str:
        """File and array, for messages."""
        return f"{self.path} [{self.name}]"

    def part(self) -> Part:
        """Return it as embeddings."""
        if self.offset is None:
            return _DeflatedPart(self.path, self.name, self.header)
        part = MappedPart(self.path, self.name, self.header, self.offset)
        self._check_crc()
        return part

    def array(self) -> NDArray[Any]:
        """Return a small array (labels, keys) whole."""
        if self.offset is not None:
            self._check_crc()
            return map_array(self.path, self.header, self.offset)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.name + ".npy") as handle:
                _skip(handle, self.header.offset)
                data = handle.read()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as err:
            raise SourceError(f"{self.where} is damaged: {err}") from err
        order: Any = "F" if self.header.fortran else "C"
        return np.frombuffer(data, self.header.dtype).reshape(self.header.shape, order=order)

    def _check_crc(self) -> None:
        """A mapped member would pass by the archive's checksum: look at it once."""
        assert self.offset is not None
        state, left = 0, self.header.offset + self.header.n_bytes
        with open_file(self.path) as handle:
            handle.seek(self.offset)
            while left > 0 and (data := handle.read(min(left, _CRC_BYTES))):
                state = zlib.crc32(data, state)
                left -= len(data)
        if state != self.crc:
            raise SourceError(f"{self.where} does not match the checksum of its archive: it is damaged")


def npz_members(path: Path) -> dict[str, NpzMember]:
    """Return the arrays of an `.npz` by name, without reading their data.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is no such file, it is no archive, or a member is not a plain array of the size it declares.
    """
    members = {}
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in members or name == info.filename:
                    raise SourceError(
                        f"{path} has a member {info.filename!r}, expected .npy arrays, each name once"
                    )
                members[name] = _member(path, name, archive, file, info)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as err:
        if isinstance(err, SourceNotFoundError):
            raise
        raise SourceError(f"{path} is not an .npz archive that can be read: {err}") from err
    if not members:
        raise SourceError(f"{path} has no arrays")
    return members


def _member(
    path: Path, name: str, archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo
) -> NpzMember:
    where = f"{path} [{name}]"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SourceError(f"{where} is compressed by method {info.compress_type}: save it with numpy.savez")
    if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > _DEFLATE_LIMIT * (
        info.compress_size + 64
    ):
        raise SourceError(f"{where} declares {info.file_size} bytes, more than {info.compress_size} can hold")
    with archive.open(info) as handle:
        header = read_npy_header(handle, info.file_size, where)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return NpzMember(path, name, header, None, info.CRC)
    if info.file_size != info.compress_size:
        raise SourceError(f"{where} is stored plainly but has two sizes: the archive is damaged")
    file.seek(info.header_offset)
    magic, n_name, n_extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + n_name + n_extra
    if magic != b"PK\x03\x04" or offset + info.file_size > path.stat().st_size:
        raise SourceError(f"{where} points outside its archive: it is damaged")
    return NpzMember(path, name, header, offset, info.CRC)
