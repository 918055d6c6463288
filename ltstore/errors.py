"""The exception tree: one base, each child also the built-in a caller would expect.

A message says what was expected, what was found, where (path, array, chunk, class) and what to do next,
in one line, because the command line prints it as it is.
"""

from __future__ import annotations


class LtstoreError(Exception):
    """Base of every error that ltstore raises on purpose."""


class ConfigError(LtstoreError, ValueError):
    """A setting is out of range, unknown, or contradicts another."""


class DataError(LtstoreError, ValueError):
    """Rows or labels cannot be used: NaN, wrong shape, an empty class where rows are needed."""


class LabelError(DataError):
    """A label lies outside the classes, or a class name is not one of the store's."""


class SourceError(LtstoreError, ValueError):
    """An image source is malformed: no classes, no images, a bad list line."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """The path of an image source does not exist."""


class ImageError(LtstoreError, ValueError):
    """One image cannot be read or decoded; ingest keeps its row with the status.

    Parameters
    ----------
    message : str
    status : int
        The `ltstore.types.RowStatus` that the row is stored with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, int]]:
        return type(self), (str(self), self.status)  # it may be raised in another process


class StoreNotFoundError(LtstoreError, FileNotFoundError):
    """There is no store, split, subset or artefact of that name."""


class StoreExistsError(LtstoreError, FileExistsError):
    """Something of that name is there already and would have to be overwritten."""


class StoreFormatError(LtstoreError, ValueError):
    """What is on disk is not a store that this version can read."""


class ChecksumMismatchError(StoreFormatError):
    """Stored bytes do not match their checksum."""


class IncompleteStoreError(LtstoreError, RuntimeError):
    """The split has not been written to its end; run the same ingest again to finish it."""


class StoreBusyError(LtstoreError, RuntimeError):
    """Another process is writing to this split."""


class StoreReadError(LtstoreError, OSError):
    """The store cannot be read now: permission, network, a service that fails again and again."""


class StoreWriteError(LtstoreError, OSError):
    """The store cannot be written: permission, full disk, read-only medium."""


class PlanMismatchError(LtstoreError, ValueError):
    """A resumed run differs (source, plan, settings) from the one that began the split, or the training."""


class EncoderMismatchError(LtstoreError, ValueError):
    """Embeddings of two feature identities would be mixed."""


class EncoderUnavailableError(LtstoreError, RuntimeError):
    """An encoder cannot be made here: package, weights or network missing."""


class BackendUnavailableError(LtstoreError, RuntimeError):
    """A compute backend was asked for by name and cannot run here."""


class WorkerLostError(LtstoreError, RuntimeError):
    """A worker was lost more often than it is replaced, or cannot be started."""


class IndexNotFoundError(LtstoreError, FileNotFoundError):
    """The store has no index of that name."""


class IndexStaleError(LtstoreError, ValueError):
    """An index was built from other rows than those it is used with."""


class ModelNotFoundError(LtstoreError, FileNotFoundError):
    """There is no model directory at that path."""


class ModelFormatError(LtstoreError, ValueError):
    """A model directory, or the checkpoint of a training, is damaged or of another format version."""
