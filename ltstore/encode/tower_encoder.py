"""What encoders have in common whose work a `TorchTower` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.encode.torch_tower import TorchTower
from ltstore.types import EncoderIdentity, FloatArray


class TowerEncoder:
    """A frozen network of torch as `ltstore.types.Encoder`; a subclass finds the network and its preprocessing.

    Parameters
    ----------
    tower : TorchTower
    preprocess : callable
        RGB image -> (H, W, 3) uint8.
    spec : str
    least_side : int or None
        See `ltstore.encode.decoding.least_side`.
    identity : mapping
        Fields of `EncoderIdentity`; `n_features` is found by encoding an image.
    """

    def __init__(
        self,
        tower: TorchTower,
        *,
        preprocess: Callable[[Image.Image], NDArray[np.uint8]],
        spec: str,
        least_side: int | None,
        identity: Mapping[str, Any],
    ) -> None:
        self._tower, self._preprocess, self._spec = tower, preprocess, spec
        self.least_side = least_side
        probe = preprocess(Image.new("RGB", (8, 8)))
        self._identity = EncoderIdentity(**identity, n_features=self.encode(probe[None]).shape[1])

    @property
    def identity(self) -> EncoderIdentity:
        """Architecture, weights (sha256 over the tensors, sorted by name) and preprocessing."""
        return self._identity

    @property
    def spec(self) -> str:
        """ "FAMILY:ARCH/WEIGHTS", with the absolute path of a checkpoint and the seed of random weights."""
        return self._spec

    @property
    def device(self) -> str:
        """ "cpu", "cuda:0", or "cuda:0,cuda:1"."""
        return self._tower.device

    @property
    def batch_size_hint(self) -> int:
        """Rows of a batch that keep the devices busy."""
        return self._tower.batch_size_hint

    @property
    def preprocess(self) -> Callable[[Image.Image], NDArray[np.uint8]]:
        """RGB image -> (H, W, 3) uint8, resized and cropped as the model wants it."""
        return self._preprocess

    def encode(self, batch: NDArray[np.uint8]) -> FloatArray:
        """(n, H, W, 3) uint8 -> (n, D) float32."""
        return self._tower.encode(batch)

    def begin(self, batch: NDArray[np.uint8]) -> Callable[[], FloatArray]:
        """Start on a batch and return what waits for its embeddings: see `TorchTower.begin`."""
        return self._tower.begin(batch)

    def to_onnx(self) -> Any:
        """Return the encoder as an ``onnx.ModelProto``: pixels (n, H, W, 3) uint8 -> embeddings (n, D) float32.

        Raises
        ------
        BackendUnavailableError, ConfigError
            See `TorchTower.to_onnx`.
        """
        return self._tower.to_onnx(self._preprocess(Image.new("RGB", (8, 8))).shape)
