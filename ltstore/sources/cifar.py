"""CIFAR-10 and CIFAR-100 in their official python form, read without trusting the pickles."""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, BinaryIO, Self

import numpy as np

from ltstore.errors import ConfigError, SourceError, SourceNotFoundError
from ltstore.sources.base import LabelledSource
from ltstore.sources.tar_index import BoundedFile, iter_members
from ltstore.types import ByteArray, IntArray

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
SIDE = 32
_LARGEST_MEMBER_BYTES = 1 << 28
_LARGEST_TAR_BYTES = 1 << 30
_LARGEST_HEADER_BYTES = 1 << 20
_LARGEST_MEMO = 1 << 24
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


@dataclass(frozen=True, kw_only=True)
class _Layout:
    name: str
    directory: str
    meta: str
    splits: Mapping[str, tuple[str, ...]]
    labels: str
    class_names: str


_LAYOUTS = (
    _Layout(
        name="CIFAR-10",
        directory="cifar-10-batches-py",
        meta="batches.meta",
        splits={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        labels="labels",
        class_names="label_names",
    ),
    _Layout(
        name="CIFAR-100",
        directory="cifar-100-python",
        meta="meta",
        splits={"train": ("train",), "test": ("test",)},
        labels="fine_labels",
        class_names="fine_label_names",
    ),
)
SPLITS = ("train", "test")


class CifarSource(LabelledSource):
    """CIFAR-10 or CIFAR-100 from the official pickles: a directory, or the tar as it was downloaded.

    Rows in official order, keys "train/00042", fine labels, the class names of the meta file. A tar is read
    by member name and never extracted. The unpickler knows the three NumPy names of the official files, builds
    arrays of unsigned bytes from them and refuses every other.

    Parameters
    ----------
    path : path
        A directory that holds the pickles or their official directory, or .tar, .tar.gz, .tar.xz, .tar.bz2.
    split : str
        "train" or "test".

    Raises
    ------
    SourceNotFoundError
        Nothing at `path`.
    SourceError
        A file is missing, damaged, or asks for a global that is not allowed (the message names it).
    ConfigError
        Another split.

    Notes
    -----
    150 MB for a train split of 50,000 images. A pickled source leaves the pixels behind and reads them again
    from `path` when the first image is asked for.
    """

    def __init__(self, path: str | Path, split: str = "train") -> None:
        if split not in SPLITS:
            raise ConfigError(f"CIFAR has the splits {' and '.join(SPLITS)}, found {split!r}")
        self._path = Path(path)
        self._split = split
        self._lock = Lock()
        pixels, labels, class_names = _load(self._path, split)
        self._pixels: ByteArray | None = pixels
        super().__init__([f"{split}/{row:05d}" for row in range(len(labels))], labels, class_names)

    def content(self, positions: IntArray) -> bytes:
        """Return the digest of the split's whole block of pixels, whichever rows are asked for."""
        return self._pixel_digest

    @cached_property
    def _pixel_digest(self) -> bytes:
        return hashlib.sha256(self._block().data).digest()

    def fetch(self, position: int) -> ByteArray:
        """Return the (32, 32, 3) uint8 pixels."""
        planes = self._block()[position].reshape(3, SIDE, SIDE)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def _block(self) -> ByteArray:
        if self._pixels is None:
            with self._lock:
                if self._pixels is None:
                    self._pixels = _load(self._path, self._split)[0]
        return self._pixels

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())


def is_cifar_directory(path: Path) -> bool:
    """Tell whether a directory holds the pickles of CIFAR-10 or CIFAR-100, or their official directory."""
    return any(_home(path, layout) is not None for layout in _LAYOUTS)


def is_cifar_tar(path: Path) -> bool:
    """Tell whether one of the first members of a tar is a pickle of CIFAR."""
    wanted = {name for layout in _LAYOUTS for names in layout.splits.values() for name in (layout.meta, *names)}
    try:
        with path.open("rb") as handle:
            first = islice(iter_members(BoundedFile(handle)), 16)
            return any(member.isfile() and PurePosixPath(member.name).name in wanted for member in first)
    except (tarfile.ReadError, OSError):
        return False


def _home(path: Path, layout: _Layout) -> Path | None:
    files = [layout.meta, *(name for split in SPLITS for name in layout.splits[split])]
    for home in (path, path / layout.directory):
        if (home / layout.meta).is_file() and any((home / name).is_file() for name in files[1:]):
            return home
    return None


def _load(path: Path, split: str) -> tuple[ByteArray, list[int], list[str]]:
    if path.is_dir():
        for layout in _LAYOUTS:
            home = _home(path, layout)
            if home is not None:
                names = (layout.meta, *layout.splits[split])
                try:
                    files = {name: (home / name).read_bytes() for name in names if (home / name).is_file()}
                except OSError as err:
                    raise SourceError(f"cannot read {err.filename}: {err.strerror or err}") from err
                return _assemble(layout, files, split, path)
        raise SourceError(f"{path} holds no CIFAR pickles: expected {_expected()}")
    if not path.is_file():
        raise SourceNotFoundError(
            f"no file or directory {path}: expected CIFAR as {_expected()}, or a tar of it"
        )
    members = _tar_members(path, split)
    for layout in _LAYOUTS:
        if layout.meta in members and any(name in members for name in layout.splits[split]):
            return _assemble(layout, members, split, path)
    raise SourceError(
        f"{path} holds no CIFAR pickles for split {split!r}: expected {_expected()}; a compressed tar of images has to "
        "be decompressed, to be read one by one"
    )


def _expected() -> str:
    return " or ".join(f"{each.directory}/ with {each.meta}" for each in _LAYOUTS)


class _Member(tarfile.TarInfo):
    """A header; what is no file (a long name, a block of attributes) is read whole by tarfile, so it must be small."""

    @classmethod
    def frombuf(cls, *args: Any) -> Self:
        found = super().frombuf(*args)
        if not found.isreg() and found.size > _LARGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


def _tar_members(path: Path, split: str) -> dict[str, bytes]:
    wanted = {name: layout for layout in _LAYOUTS for name in (layout.meta, *layout.splits[split])}
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
            for member in archive:
                if member.offset_data + member.size > _LARGEST_TAR_BYTES:
                    raise SourceError(
                        f"{path} unpacks to more than 1 GiB and is no CIFAR archive; a compressed tar of images has to "
                        "be decompressed, to be read one by one"
                    )
                name = PurePosixPath(member.name).name
                if name not in wanted or name in members or not member.isfile():
                    continue
                if member.size > _LARGEST_MEMBER_BYTES:
                    raise SourceError(f"{path}: member {member.name} of {member.size} bytes is no CIFAR file")
                stream = archive.extractfile(member)
                if stream is not None:
                    members[name] = stream.read()
                if any(members.keys() >= {each.meta, *each.splits[split]} for each in _LAYOUTS):
                    break
    except (tarfile.TarError, EOFError, OSError, ValueError) as err:
        if isinstance(err, SourceError):
            raise
        raise SourceError(f"{path} is not a whole tar: {err}") from err
    except Exception as err:
        if type(err).__name__ in ("LZMAError", "error"):  # lzma and zlib have bases of their own
            raise SourceError(f"{path} is not a whole tar: {err}") from err
        raise
    return members


def _assemble(
    layout: _Layout, files: Mapping[str, bytes], split: str, path: Path
) -> tuple[ByteArray, list[int], list[str]]:
    missing = [name for name in (layout.meta, *layout.splits[split]) if name not in files]
    if missing:
        raise SourceError(f"{path} lacks {', '.join(missing)} of {layout.name}: download it again")
    meta = _unpickled(files[layout.meta], f"{path}: {layout.meta}")
    class_names = [_text(name) for name in _entry(meta, layout.class_names, f"{path}: {layout.meta}")]
    pixels: list[ByteArray] = []
    labels: list[int] = []
    for name in layout.splits[split]:
        where = f"{path}: {name}"
        batch = _unpickled(files[name], where)
        held = _entry(batch, "data", where)
        block = held.pixels if isinstance(held, _Array) else None
        column = _entry(batch, layout.labels, where)
        if block is None or block.shape[1:] != (3 * SIDE * SIDE,):
            raise SourceError(f"{where}: expected data of shape (n, 3072) and uint8")
        if (
            not isinstance(column, list)
            or len(column) != len(block)
            or not all(isinstance(y, int) and 0 <= y < len(class_names) for y in column)
        ):
            raise SourceError(f"{where}: expected {len(block)} labels in 0..{len(class_names) - 1}")
        pixels.append(block)
        labels += column
    return pixels[0] if len(pixels) == 1 else np.concatenate(pixels), labels, class_names


def _entry(batch: Any, name: str, where: str) -> Any:
    if isinstance(batch, dict):
        for key in (name, name.encode()):
            if key in batch:
                return batch[key]
    raise SourceError(f"{where}: expected a dict with {name!r}")


def _text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


class _Array:
    """What a pickled array becomes: a holder that takes unsigned bytes and nothing else.

    The real ndarray and dtype are out of the pickle's reach, since calling them with chosen arguments forges an
    array of object pointers.
    """

    pixels: ByteArray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or fortran or not isinstance(content, bytes):
            raise pickle.UnpicklingError("only plain arrays of unsigned bytes are allowed")
        self.pixels = np.frombuffer(content, np.uint8).reshape(shape)


class _Dtype:
    """The dtype of unsigned bytes, the only one that the official files hold; its state says no more."""

    def __setstate__(self, state: Any) -> None: ...


def _dtype(name: Any, *_: Any) -> _Dtype:
    if name not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"expected an array of uint8, found dtype {name!r}")
    return _Dtype()


_NDARRAY = "numpy.ndarray"  # names the class in numpy's pickles; cannot be called


def _reconstruct(subtype: Any, *_: Any) -> _Array:
    # What numpy's pickles call; the array's content follows through __setstate__.
    if subtype is not _NDARRAY:
        raise pickle.UnpicklingError("only plain arrays are allowed")
    return _Array()


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, where: str) -> None:
        super().__init__(stream, fix_imports=False, encoding="bytes")
        self._where = where

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise SourceError(
                f"{self._where} asks to load {module_name}.{global_name}, which the official files never do: "
                "refused, the file is not to be trusted"
            ) from None


def _check_claims(data: bytes) -> None:
    """Raise ValueError where a pickle claims more than it holds, bytes or a memo: the unpickler allocates them."""
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in _PUTS and argument >= _LARGEST_MEMO:
            raise ValueError(f"a memo of {argument} objects")


def _unpickled(data: bytes, where: str) -> Any:
    try:
        _check_claims(data)
        return _RestrictedUnpickler(io.BytesIO(data), where).load()
    except (SourceError, MemoryError):
        raise
    except Exception as err:
        # A damaged pickle raises nearly anything.
        raise SourceError(f"{where} is not a whole pickle: {type(err).__name__}: {err}") from err
