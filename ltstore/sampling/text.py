"""`text`: a Gaussian per class whose mean is pulled toward the text vector of the class's name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.rows import normalize_rows
from ltstore.sampling.anchored_gauss import AnchoredGaussSampler
from ltstore.sampling.bounds import check_number
from ltstore.sampling.covariance import borrowed_covariance
from ltstore.sampling.lending import Lending
from ltstore.sampling.mean_pull import pull_to_prior
from ltstore.types import Donors, DoubleArray, Moments

_LARGEST_ARCHIVE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Settings of `text`; all but `vectors` are as in `neighbor-gauss`.

    Attributes
    ----------
    vectors : str
        Path of a .npy or .npz file with a (C, D) array of floats: row c is the text vector of class c, in the
        order of the class names, by the text tower of the encoder of the rows. An .npz holds it as "vectors" or
        as its only array but "class_names", which, if there, must be the class names. Default: what the sampler's
        `default_vectors` names, of a store those of `ltstore text`.
    vectors_digest : str or None
        SHA-256 that the vectors must have; None takes any.
    scale : float or None
        b >= 0: factor on how text vectors differ from each other; 1 shifts them only. None estimates it.
    anchor : float
        a in [0, 1]: how much of a real row's offset from its class mean a synthetic row keeps.
    nu : float
        > 0: how many rows the borrowed covariance counts for.
    donor_share : float
        w in [0, 1]: share of the donors' covariance in the borrowed one; the rest is the pooled covariance.
    pull : float
        gamma in [0, 1]: the farthest, as a share of the way, that a mean moves toward its text anchor.
    pull_rows : float or None
        kappa >= 0: how many rows the pull counts for; None estimates it.
    """

    vectors: str = ""
    vectors_digest: str | None = None
    scale: float | None = None
    anchor: float = 0.5
    nu: float = 20.0
    donor_share: float = 0.5
    pull: float = 1.0
    pull_rows: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.vectors, str):
            raise ConfigError(f"text: vectors must be the path of a .npy or .npz file, found {self.vectors!r}")
        for name in ("anchor", "donor_share", "pull"):
            check_number("text", name, getattr(self, name), high=1.0)
        check_number("text", "scale", self.scale, optional=True)
        check_number("text", "nu", self.nu, open_low=True)
        check_number("text", "pull_rows", self.pull_rows, optional=True)


class TextSampler(AnchoredGaussSampler):
    """`neighbor-gauss` with a text anchor p_c in place of the donors' mean.

    Text and image vectors of contrastive models lie in two cones, so t_c itself is far from every image of c, and
    classes differ more, or less, among texts than among images. Both are estimated on the head classes h: with m the
    mean of mu_h and s the mean of t_h,

    ``p_c = m + b (t_c - s)``, by least squares ``b = sum_h (mu_h - m)'(t_h - s) / sum_h |t_h - s|^2``, and
    ``mu' = mu + gamma kappa / (kappa + n) (p_c - mu)``

    With b = 1 that is t_c shifted by the mean gap between image and text. A negative estimate counts as 0: text that
    says nothing of its classes gives m for all. Every class is pulled, with kappa as given or estimated
    (`ltstore.sampling.mean_pull.pull_to_prior`) from the classes that are not head, or from all where all are: their
    squared gap |p_c - mu_c|^2 says how far text is to be believed. Text vectors are scaled to unit norm where the rows
    have it. Covariance and noise are those of neighbor-gauss, donors included.

    The settings of a fitted sampler have `vectors_digest`, the SHA-256 of the array.

    References
    ----------
    Liang et al. (2022) "Mind the gap: understanding the modality gap in multi-modal contrastive representation
    learning", NeurIPS: the gap is nearly one vector for all classes. The scale is ordinary least squares.
    """

    name: ClassVar[str] = "text"
    settings_type: ClassVar[type] = TextSettings
    _settings: TextSettings
    default_vectors: Path | None = None
    """Where the vectors lie if the settings do not say."""

    def _fit(self, moments: Moments, donors: Donors) -> None:
        s = self._settings
        lending = Lending.of(donors)
        vectors = self._vectors()
        digest = _digest(vectors)
        if s.vectors_digest not in (None, digest):
            raise DataError(
                f"text: the vectors are no longer those of {s.vectors_digest}, found {digest}: sample anew"
            )
        present = moments.counts > 0
        head = donors.head & present if (donors.head & present).any() else present
        center, text_center = moments.means[head].mean(axis=0), vectors[head].mean(axis=0)
        scale = s.scale
        if scale is None:
            scale = _least_squares(vectors[head] - text_center, moments.means[head] - center)
        # The sampling error of the center, in units of the variance within classes.
        error = float((1.0 / moments.counts[head]).sum()) / int(head.sum()) ** 2
        judged = present & ~head if (present & ~head).any() else present
        toward = center + scale * (vectors - text_center) - moments.means
        options: dict[str, Any] = {"counts": moments.counts, "means": moments.means, "toward": toward}
        options |= {"variance": float(np.trace(moments.pooled)), "error": np.full(len(present), error)}
        pull_rows = s.pull_rows
        if pull_rows is None:
            pull_rows = pull_to_prior(**options, pulled=judged, pull=s.pull, pull_rows=None).pull_rows
        pulled = pull_to_prior(**options, pulled=present, pull=s.pull, pull_rows=pull_rows)
        self._resolved = {
            "scale": float(scale),
            "pull_rows": pulled.pull_rows,
            "vectors_digest": digest,
        }
        self._keep(
            moments,
            pulled.means,
            borrowed_covariance(moments, lending, nu=s.nu, donor_share=s.donor_share),
            anchor=np.full(len(moments.counts), s.anchor),
        )

    def _vectors(self) -> DoubleArray:
        where = self._settings.vectors or str(self.default_vectors or "")
        vectors = _read_vectors(where, self.rows.class_names)
        expected = (len(self.rows.class_names), self.rows.n_features)
        if vectors.shape != expected or vectors.dtype.kind not in "fiu":
            raise DataError(
                f"text: {where} must hold one vector of the rows' encoder for each class, (classes, features) "
                f"{expected} floats; found {vectors.shape} of {vectors.dtype}"
            )
        narrow = vectors.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(narrow).all(axis=1))
        if len(bad):
            raise DataError(
                f"text: {where} has NaN or Inf in the vector of class {self.rows.class_names[bad[0]]!r}"
            )
        if self.rows.normalized:
            normalize_rows(narrow)
        checked: DoubleArray = narrow.astype(np.float64)
        return checked


def _least_squares(text: DoubleArray, images: DoubleArray) -> float:
    """The factor b >= 0 of least |images - b text|^2; 1 where all text vectors are one."""
    spread = float(np.vdot(text, text))
    return max(float(np.vdot(text, images)) / spread, 0.0) if spread > 0 else 1.0


def _read_vectors(where: str, class_names: tuple[str, ...]) -> Any:
    if not where:
        raise ConfigError(
            "text: no vectors: give vectors=FILE, a .npy or .npz of one text vector for each class, in the order "
            "of the class names, or make those of a store by `ltstore text`"
        )
    try:
        with Path(where).open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else _of_archive(loaded, where, class_names)
    except FileNotFoundError as err:
        raise ConfigError(f"text: there is no file {where}") from err
    except DataError:
        raise
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, BadZipFile) as err:
        raise DataError(f"text: {where} is not a .npy or .npz of numbers: {err}") from err


def _of_archive(archive: Any, where: str, class_names: tuple[str, ...]) -> Any:
    if sum(member.file_size for member in archive.zip.infolist()) > _LARGEST_ARCHIVE_BYTES:
        raise DataError(f"text: {where} unpacks to more than 1 GiB: give a .npy")
    names = [name for name in archive.files if name != "class_names"]
    name = "vectors" if "vectors" in names else names[0] if len(names) == 1 else None
    if name is None:
        found = ", ".join(archive.files) or "none"
        raise DataError(f"text: {where} must have an array 'vectors', found {found}")
    if "class_names" in archive.files and tuple(map(str, archive["class_names"])) != class_names:
        raise DataError(f"text: {where} is of other class names, or in another order, than the rows")
    return archive[name]


def _digest(vectors: DoubleArray) -> str:
    return "sha256:" + hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest()
