"""What a model says of the rows it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ltstore.linear.model import LinearModel
from ltstore.provenance import record
from ltstore.types import EncoderIdentity, IntArray, Rows


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows that are trained on came from.

    Attributes
    ----------
    encoder : EncoderIdentity
        Of the rows.
    encoder_spec : str
        How to make the encoder again; "" where that is not known.
    normalized : bool
        Whether the rows have unit norm.
    made_from : mapping
        Names and digests, for the record.
    class_counts : (C,) int64, optional
        Kept in the model for many/medium/few; default: of the rows that are trained on.
    """

    encoder: EncoderIdentity
    encoder_spec: str = ""
    normalized: bool = True
    made_from: Mapping[str, Any] = field(default_factory=dict)
    class_counts: IntArray | None = None

    @classmethod
    def of(cls, rows: Rows) -> Origin:
        """Return what rows say of themselves."""
        return cls(encoder=rows.encoder, normalized=rows.normalized)

    def model(
        self,
        weight: ArrayLike,
        bias: ArrayLike,
        class_names: tuple[str, ...],
        counts: IntArray,
        *,
        settings: Mapping[str, Any],
        seed: int | None = None,
    ) -> LinearModel:
        """Return the model of a head that was trained on such rows, `counts` of each class."""
        return LinearModel(
            weight=np.asarray(weight, np.float32),
            bias=np.asarray(bias, np.float32),
            class_names=tuple(class_names),
            encoder=self.encoder,
            encoder_spec=self.encoder_spec,
            normalized=self.normalized,
            class_counts=(counts if self.class_counts is None else self.class_counts).astype(np.int64),
            record=record("model", settings=settings, made_from=self.made_from, seed=seed),
        )
