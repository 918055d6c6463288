"""What all image networks of torch share: devices, precision, copies that overlap with work, batches that fit.

The only state is a replica of the network on each device. A batch is cut into pieces, one after another to one device
after another; pieces come back in order.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltstore.encode.onnx_graph import EMBEDDINGS, PIXELS, check_size, onnx_package, stripped
from ltstore.errors import BackendUnavailableError, ConfigError, EncoderUnavailableError
from ltstore.types import FloatArray

_log = logging.getLogger(__name__)

_ROWS_CPU, _ROWS_GPU = 32, 256
_DEVICES = "auto, cpu, cuda or cuda:1, several GPUs (cuda:0,cuda:1), or all"


class TorchTower:
    """A frozen image network on one or more devices.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; moved to the first device, copied to the others. Convolutional networks are laid out
        channels last.
    forward : callable
        (model, inputs (n, 3, H, W) floats) -> (n, D).
    mean, std : 3 floats
        Of pixels in 0..1, applied on the device.
    devices : sequence of torch.device
        Of one kind.
    compiled : bool
        Run `forward` through torch.compile: the first batch of each shape takes up to minutes.

    Notes
    -----
    float32 on a CPU; on a GPU bfloat16 autocast, or float16 where the GPU has no bfloat16.

    On a GPU, inputs are copied from pinned memory on a stream of their own, so that the copy for a piece runs beside
    the work on the one before, and results come back only when asked for: see `begin`.
    """

    def __init__(
        self,
        model: Any,
        forward: Callable[[Any, Any], Any],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        devices: Sequence[Any],
        compiled: bool = False,
    ) -> None:
        import torch

        model = model.eval().requires_grad_(False)
        if (
            sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) > 1
        ):  # one is a patch embedding
            model = model.to(memory_format=torch.channels_last)
        self._forward = forward
        run = torch.compile(forward) if compiled else forward
        self._oom = torch.OutOfMemoryError
        models = [model, *(copy.deepcopy(model) for _ in devices[1:])]
        self._replicas = [
            _Replica(torch, each.to(device), run, mean, std, device)
            for each, device in zip(models, devices, strict=True)
        ]
        self._most_rows: int | None = None
        self.device = ",".join(map(str, devices))
        self.batch_size_hint = len(devices) * (_ROWS_GPU if devices[0].type == "cuda" else _ROWS_CPU)

    @property
    def model(self) -> Any:
        """The network on the first device."""
        return self._replicas[0].model

    def context(self) -> AbstractContextManager[None]:
        """Inference mode and autocast of the first device, for what else is computed with `model`."""
        return self._replicas[0].context()

    def encode(self, batch: NDArray[np.uint8]) -> FloatArray:
        """(n, H, W, 3) uint8 -> (n, D) float32."""
        return self.begin(batch)()

    def begin(self, batch: NDArray[np.uint8]) -> Callable[[], FloatArray]:
        """Start on a batch and return what waits for its embeddings, (n, D) float32.

        On a GPU this comes back before they are there: a batch that is begun before the last one is asked for is
        copied, and its work queued, meanwhile. A piece that does not fit into a device's memory is halved, and so are
        those after it, of all batches to come; that is logged once each time.

        Raises
        ------
        EncoderUnavailableError
            A single image does not fit.
        """
        found: list[Callable[[], FloatArray]] = []
        rows = -(-len(batch) // len(self._replicas))
        start = 0
        while start < len(batch):
            rows = min(rows, self._most_rows or rows)
            piece = batch[start : start + rows]
            replica = self._replicas[len(found) % len(self._replicas)]
            try:
                begun = replica.begin(piece)
            except self._oom as err:
                if len(piece) == 1:
                    raise EncoderUnavailableError(
                        f"one image does not fit into the memory of {replica.device}: free some, or use another device"
                    ) from err
                begun = None
            if begun is None:  # outside the handler, which would keep the tensors of the failure
                self._most_rows = len(piece) // 2
                replica.release()
                _log.warning(
                    "%d images do not fit into the memory of %s: %d at a time from here on",
                    len(piece),
                    replica.device,
                    self._most_rows,
                )
                continue
            found.append(begun)
            start += len(piece)
        return lambda: np.concatenate([each() for each in found])

    def to_onnx(self, shape: Sequence[int]) -> Any:
        """Return the network as an ``onnx.ModelProto``: pixels (n, *shape) uint8 -> embeddings (n, D) float32.

        Parameters
        ----------
        shape : (H, W, 3)

        Raises
        ------
        BackendUnavailableError
            onnx or onnxscript is not installed, or torch's exporter does not know some part of the network.
        ConfigError
            The weights do not fit into one file.

        Notes
        -----
        Mean and std are in the graph. Through torch.export: seconds to a minute, and about four times the memory of
        the weights.
        """
        import torch

        onnx_package()
        replica, forward = self._replicas[0], self._forward

        class Whole(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = replica.model
                self.register_buffer("scale", replica.scale)
                self.register_buffer("shift", replica.shift)

            def forward(self, pixels: Any) -> Any:
                inputs = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
                return forward(self.model, inputs).float()

        whole = Whole().eval()
        # of one image exporters would make a constant
        example = torch.zeros((2, *shape), dtype=torch.uint8, device=replica.device)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.onnx.export(
                    whole,
                    (example,),
                    input_names=[PIXELS],
                    output_names=[EMBEDDINGS],
                    dynamic_shapes=({0: torch.export.Dim("n")},),
                    dynamo=True,
                    verbose=False,
                )
        except ImportError as err:
            raise BackendUnavailableError(
                f"torch cannot write ONNX ({err}): pip install 'ltstore[onnx]'"
            ) from err
        except Exception as err:  # torch's exporter raises what its many parts do
            reason = (str(err).splitlines() or [type(err).__name__])[0][:200]
            raise BackendUnavailableError(
                f"torch cannot write this network as ONNX ({reason}): export the head alone"
            ) from err
        weights = program.model.graph.initializers.values()  # those of a text tower are not among them
        check_size(sum(each.const_value.nbytes for each in weights))
        return stripped(program.model_proto)


class _Replica:
    """The network on one device."""

    def __init__(
        self,
        torch: Any,
        model: Any,
        forward: Callable[[Any, Any], Any],
        mean: Sequence[float],
        std: Sequence[float],
        device: Any,
    ) -> None:
        self._torch, self.model, self._forward, self.device = torch, model, forward, device
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(
            1, 3, 1, 1
        )
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def context(self) -> Iterator[None]:
        """Inference mode, and on a GPU the device and its autocast."""
        torch = self._torch
        with torch.inference_mode(), ExitStack() as stack:
            if self._copies is not None:
                stack.enter_context(torch.cuda.device(self.device))
                bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
                stack.enter_context(torch.autocast("cuda", torch.bfloat16 if bfloat16 else torch.float16))
            yield

    def release(self) -> None:
        """Give cached memory back to the device."""
        if self._copies is not None:
            self._torch.cuda.empty_cache()

    def begin(self, batch: NDArray[np.uint8]) -> Callable[[], FloatArray]:
        """Queue the work on a piece and return what waits for it; on a CPU it is done when this returns."""
        torch = self._torch
        pixels = torch.from_numpy(np.require(batch, requirements=["C", "W"]))  # torch warns of read-only memory
        with self.context():
            if self._copies is None:
                return self._embed(pixels).numpy  # type: ignore[no-any-return]
            working = torch.cuda.current_stream()
            # Pinned memory is torch's own to reuse, and is not while a copy out of it runs.
            with torch.cuda.stream(self._copies):
                there = pixels.pin_memory().to(self.device, non_blocking=True)
            working.wait_stream(self._copies)
            there.record_stream(working)
            X = self._embed(there)
            back = torch.empty(X.shape, dtype=X.dtype, pin_memory=True)
            back.copy_(X, non_blocking=True)
            done = working.record_event()

        def wait() -> FloatArray:
            done.synchronize()
            embeddings: FloatArray = back.numpy()
            return embeddings

        return wait

    def _embed(self, pixels: Any) -> Any:
        # (n, H, W, 3) seen as (n, 3, H, W) is channels last already
        inputs = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return self._forward(self.model, inputs).float()


def torch_devices(device: str) -> list[Any]:
    """Return the torch devices that a text names: see `_DEVICES`; "auto" is the first GPU, or the CPU without one.

    Raises
    ------
    ConfigError
        It names none, one twice, or CPU and GPU together.
    EncoderUnavailableError
        There is no such GPU.
    """
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if n_gpus else "cpu"
    if device == "all":
        device = ",".join(f"cuda:{i}" for i in range(max(n_gpus, 1)))
    names = ["cuda:0" if name == "cuda" else name for name in device.split(",")]
    try:
        devices = [torch.device(name) for name in names]
    except RuntimeError as err:
        raise ConfigError(f"unknown device {device!r}: expected {_DEVICES}") from err
    kinds = {each.type for each in devices}
    if len(kinds) > 1 or not kinds <= {"cpu", "cuda"} or len(set(names)) < len(names):
        raise ConfigError(f"unknown device {device!r}: expected {_DEVICES}")
    for each in devices:
        if each.type == "cuda" and each.index >= n_gpus:
            has = f"{n_gpus} of them" if n_gpus else "no CUDA GPU"
            raise EncoderUnavailableError(f"device {each} was asked for and torch finds {has}: use device cpu")
    return devices
