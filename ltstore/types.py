"""Array aliases, the records that travel between rooms, and the Protocols they are built against.

Letters: N = n_samples, D = n_features, C = n_classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

UNLABELLED = -1


class RowStatus(IntEnum):
    """Why a row has, or has not, an embedding. Values are on disk for ever: never renumber."""

    OK = 0
    MISSING = 1  # the file is not there, or may not be read
    CORRUPT = 2  # the bytes are there and are not a whole image
    TOO_LARGE = 3  # more pixels than the decompression-bomb limit
    NON_FINITE = 4  # the encoder gave NaN or Inf
    OVERFLOW = 5  # the embedding does not fit the store's dtype
    LOST = 6  # the stored embedding was damaged and could not be re-made


@dataclass(frozen=True, kw_only=True)
class EncoderIdentity:
    """What makes two embeddings comparable: stored with every split, index and model, and enforced.

    Where `weights_digest` is known, it decides: the names that a file happens to have are left out of comparison and
    digest: `weights`, and the `model` of an onnx file.

    Attributes
    ----------
    encoder : str
        Family: "open_clip", "onnx", "pixels", "timm", "import".
    model : str
        Architecture or file name, e.g. "ViT-B-32".
    weights : str
        Pretrained tag, or "" where there are none.
    weights_digest : str
        "sha256:..." of the weights, or "" where there are none (pixels) or they cannot be known.
    preprocessing : mapping of str to JSON values
        Everything that changes the numbers between the decoded image and the network.
    features : str
        "projected" or "penultimate".
    n_features : int
        D.
    normalized : bool
        Whether the encoder's output already has unit norm.
    """

    encoder: str
    model: str
    weights: str = ""
    weights_digest: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    features: str = "projected"
    n_features: int
    normalized: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that `from_json` turns into an equal identity."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EncoderIdentity:
        """Build an identity from `to_json`'s dict; unknown or missing keys raise TypeError."""
        return cls(**data)

    def __eq__(self, other: object) -> bool:
        """Whether embeddings of both can be compared."""
        if not isinstance(other, EncoderIdentity):
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash(self.digest)

    def _compared(self) -> dict[str, Any]:
        record = self.to_json()
        if self.weights_digest:
            del record["weights"]
            if self.encoder == "onnx":
                del record["model"]
        return record

    @property
    def digest(self) -> str:
        """ "sha256:" + hex of the canonical JSON of what is compared: equal exactly where two identities are."""
        text = json.dumps(self._compared(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: EncoderIdentity) -> list[str]:
        """Name what differs, as "model: ViT-B-32 / ViT-L-14" lines, for error messages."""
        mine, theirs = _flat(self._compared()), _flat(other._compared())
        return [
            f"{key}: {mine.get(key, 'not set')} / {theirs.get(key, 'not set')}"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": found for inner, found in value.items()}
        else:
            flat[key] = value
    return flat


@runtime_checkable
class Rows(Protocol):
    """A readable, ordered set of labelled embeddings: a split, a subset of one, or arrays in memory.

    Rows that have no embedding (status not OK) are never part of it. `ltstore.rows.ArrayRows` is the
    in-memory implementation; `ltstore.store` gives the on-disk one.
    """

    @property
    def n_samples(self) -> int:
        """N."""

    @property
    def n_features(self) -> int:
        """D."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; the label of a row is a position in it."""

    @property
    def labels(self) -> IntArray:
        """(N,) int64, UNLABELLED where unknown. Read-only."""

    @property
    def row_ids(self) -> IntArray:
        """(N,) int64: each row's id in the split it comes from, ascending, unique. Read-only."""

    @property
    def normalized(self) -> bool:
        """Whether rows come with unit L2 norm (all-zero rows stay zero)."""

    @property
    def digest(self) -> str:
        """ "sha256:..." that changes when any row, label, order or normalization changes."""

    @property
    def encoder(self) -> EncoderIdentity:
        """The feature identity of every row."""

    def read(self, start: int, stop: int, out: FloatArray | None = None) -> FloatArray:
        """Return rows [start, stop) as a (stop - start, D) float32 C-contiguous array, `out` if given."""

    def take(self, positions: IntArray, out: FloatArray | None = None) -> FloatArray:
        """Return the rows at `positions` (0..N-1, any order, repeats allowed) as (n, D) float32, `out` if given."""


class ImageSource(Protocol):
    """Images with labels in a fixed, deterministic order. Picklable; `read` may be called from threads."""

    @property
    def n_samples(self) -> int:
        """N."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names; empty where the source has no labels."""

    @property
    def labels(self) -> IntArray:
        """(N,) int64 positions in class_names, UNLABELLED where unknown."""

    @property
    def digest(self) -> str:
        """ "sha256:..." over keys, labels and what tells contents apart: a resumed ingest must see the same one."""

    def key(self, position: int) -> str:
        """Where row `position` came from: a path relative to the source's root, or a member name."""

    def read(self, position: int) -> Image:
        """Return the decoded RGB image, or raise ImageError with the RowStatus to keep."""


class Encoder(Protocol):
    """A frozen network from preprocessed images to embeddings.

    It may also have `batch_size_hint`, an int, and `least_side`, an int or None: sides at which JPEGs that are larger
    may be decoded, as `ltstore.sources.decode_image` says. One that gives several kinds of features side by side has
    `parts`, their identities in the order of the columns; `identity` is then that of all of them together, and
    `ltstore.encode.ingest` writes each into a store of its own.
    """

    @property
    def identity(self) -> EncoderIdentity:
        """The feature identity written into the store."""

    @property
    def spec(self) -> str:
        """The text after --encoder that makes this encoder again, e.g. "open_clip:ViT-B-32/openai"."""

    @property
    def device(self) -> str:
        """ "cpu", "cuda:0", ..."""

    @property
    def preprocess(self) -> Callable[[Image], NDArray[Any]]:
        """RGB image -> one input array; thread-safe."""

    def encode(self, batch: NDArray[Any]) -> FloatArray:
        """(n, ...) stacked inputs -> (n, D) float32 embeddings, not modified otherwise."""


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder whose embeddings share a space with text."""

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines of image and text by, to make logits of them."""

    def encode_text(self, texts: Sequence[str]) -> FloatArray:
        """(n,) texts -> (n, D) float32; ConfigError where the features are not those that text shares."""


@dataclass(frozen=True, kw_only=True)
class Donors:
    """Each class's nearest donor (head) classes and how much each lends.

    Attributes
    ----------
    class_ids : (C, k) int64
        Donor classes, best first, -1 where there are fewer than k. A class is never its own donor.
    weights : (C, k) float64
        Non-negative, rows sum to 1 (or to 0 where a class has no donor).
    similarity : (C, k) float64
        Cosine similarity between the class and the donor, NaN where there is none.
    head : (C,) bool
        Which classes may lend.
    """

    class_ids: IntArray
    weights: DoubleArray
    similarity: DoubleArray
    head: BoolArray


class Moments(Protocol):
    """First and second moments of every class (see `ltstore.stats`); read-only."""

    @property
    def counts(self) -> IntArray:
        """(C,) int64 labelled rows of each class."""

    @property
    def means(self) -> DoubleArray:
        """(C, D); zero where a class has no rows."""

    @property
    def pooled(self) -> DoubleArray:
        """(D, D) within-class covariance, divisor max(N - n_nonempty, 1)."""

    @property
    def basis(self) -> DoubleArray:
        """(D, r) orthonormal: top eigenvectors of pooled."""

    @property
    def scatter(self) -> DoubleArray:
        """(C, r, r) class scatter (not divided) inside the basis."""

    @property
    def residual(self) -> DoubleArray:
        """(C, D) diagonal of the class scatter (not divided) outside the basis."""


@dataclass(frozen=True, kw_only=True)
class SyntheticRows:
    """Rows that a sampler made.

    Attributes
    ----------
    X : (n, D) float32
    labels : (n,) int64
    parent_ids : (n, p) int64
        Row ids (of the split sampled from) that the row was made of; -1 where there are fewer than p.
    donor_ids : (n, q) int64
        Classes that lent to it; -1 where there are fewer than q.
    """

    X: FloatArray
    labels: IntArray
    parent_ids: IntArray
    donor_ids: IntArray


class Sampler(Protocol):
    """Makes synthetic rows of a class. Row i is a pure function of (seed, sampler, class_id, epoch, i)."""

    @property
    def name(self) -> str:
        """The name after --sampler."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Resolved settings, JSON values only."""

    def fit(self, rows: Rows, moments: Moments, donors: Donors) -> Sampler:
        """Keep what sampling needs of the real rows; returns self."""

    def sample(self, class_id: int, start: int, stop: int, *, seed: int, epoch: int = 0) -> SyntheticRows:
        """Return rows [start, stop) of the class's endless sequence: slices of it agree however it is cut."""


class NeighborIndex(Protocol):
    """Nearest rows of a fixed set of rows."""

    @property
    def metric(self) -> str:
        """ "cosine", "inner_product" or "l2"."""

    @property
    def row_ids(self) -> IntArray:
        """(N,) int64 ids of the indexed rows."""

    def search(self, X: FloatArray, k: int, *, exclude: IntArray | None = None) -> tuple[IntArray, FloatArray]:
        """Nearest k of each of (n, D) queries.

        Returns
        -------
        neighbor_ids : (n, k) int64
            Row ids, nearest first, -1 where there are fewer than k.
        distances : (n, k) float32
            Similarity, higher is nearer ("cosine", "inner_product"), or squared distance ("l2");
            NaN beside -1.

        `exclude` (n,) int64 removes one row id per query: itself, by id.
        """


Progress = Callable[[int, Mapping[str, float]], None]
"""Called with (rows done since the last call, {"read": seconds, ...}); the library never prints."""


def no_progress(rows: int, seconds: Mapping[str, float]) -> None:
    """Ignore progress."""


ClassNames = Sequence[str]
