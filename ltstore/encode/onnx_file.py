"""Any image network in an ONNX file, run by onnxruntime."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ltstore.cores import available_cores
from ltstore.encode.decoding import DECODINGS, least_side, recorded, resized
from ltstore.encode.onnx_graph import (
    EMBEDDINGS,
    PIXELS,
    PREFIX,
    Step,
    Value,
    chain,
    check_size,
    joined,
    onnx_package,
    prepared,
)
from ltstore.encode.onnx_weights import external_files, weights_digest
from ltstore.encode.options import check_keys
from ltstore.errors import ConfigError, EncoderUnavailableError
from ltstore.types import EncoderIdentity, FloatArray

_log = logging.getLogger(__name__)
_CUDA = "CUDAExecutionProvider"
_LARGEST_SETTINGS_BYTES = 1 << 13  # a dotted key costs the square of its length
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_CHOICES = {
    "resize": tuple(_FILTERS),
    "crop": ("center", "none"),
    "layout": ("NCHW", "NHWC"),
    "channels": ("RGB", "BGR"),
    "decoding": DECODINGS,
}


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """What lies between a decoded image and the network, and which output is the embedding.

    The input is ``(pixel - mean) * scale``, or ``(pixel - mean) / std`` where `std` is given, of pixels 0..255.

    Parameters
    ----------
    size : int
        Side of the square input; default the one that the file fixes.
    resize : str
        "nearest", "bilinear", "bicubic" (default) or "lanczos", as Pillow does them.
    crop : str
        "center" (default): the shorter side becomes `size`, then the middle is cut out (in one step); "none":
        the whole image is squeezed to the square.
    mean : float or three floats
        Default 0.
    scale : float or three floats
        Default 1 / 255. Not together with `std`.
    std : float or three floats
    layout : str
        "NCHW" or "NHWC"; default by where the file's input has its 3 channels, else "NCHW".
    channels : str
        "RGB" (default) or "BGR".
    input, output : str
        Names in the file; default its only input and its first output.
    decoding : str
        "fast" (default) or "full", see `ltstore.encode.decoding`.
    """

    size: int | None = None
    resize: str = "bicubic"
    crop: str = "center"
    mean: float | Sequence[float] = 0.0
    scale: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    layout: str | None = None
    channels: str = "RGB"
    input: str | None = None
    output: str | None = None
    decoding: str = "fast"

    def __post_init__(self) -> None:
        if self.size is not None and (not isinstance(self.size, int) or self.size < 1):
            raise ConfigError(f"onnx size must be a positive integer, found {self.size!r}")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ConfigError(f"onnx {name} must be one of {', '.join(allowed)}, found {value!r}")
        if self.scale is not None and self.std is not None:
            raise ConfigError("onnx settings give both scale and std: keep one, scale is 1 / std")
        for name in ("mean", "scale", "std"):
            value = getattr(self, name)
            if value is None:
                continue
            numbers = np.atleast_1d(np.asarray(value, dtype=object))
            if numbers.shape not in ((1,), (3,)) or not all(isinstance(v, int | float) for v in numbers):
                raise ConfigError(f"onnx {name} must be a number or three, found {value!r}")
            if not np.isfinite(numbers.astype(float)).all() or (name == "std" and (numbers == 0).any()):
                raise ConfigError(f"onnx {name} must be finite, and std not 0, found {value!r}")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> OnnxSettings:
        """Build settings from TOML or options; an unknown key is a ConfigError naming the nearest."""
        check_keys(settings, (field.name for field in fields(cls)), "an onnx encoder")
        return cls(**settings)


class OnnxEncoder:
    """A network in an ONNX file.

    Parameters
    ----------
    path : path
    settings : OnnxSettings
    device : str
        "auto" (CUDA where this onnxruntime has it and can start it), "cpu", "cuda" or "cuda:1".
    n_threads : int, optional
        CPU only: how many images run at a time, each on one thread; default the cores of this process.

    Raises
    ------
    EncoderUnavailableError
        onnxruntime is not installed, the file is not there or does not load, or CUDA was asked for and is not there.
    ConfigError
        Settings contradict the file: names its inputs and outputs; or the output is not one row for each image.

    Notes
    -----
    On a CPU every image is its own run on one thread, `n_threads` of them side by side: that is as fast as or
    faster than larger batches (activations stay in the cache, threads never wait for each other), leaves room for
    decoding between runs, and makes a row independent of the batch that it came in. A file that fixes its batch size
    is run in batches of that size, the last one padded with black images.
    """

    def __init__(
        self, path: str | Path, settings: OnnxSettings, *, device: str = "auto", n_threads: int | None = None
    ) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise EncoderUnavailableError(f"no ONNX file {path}")
        runtime = _runtime()
        available = runtime.get_available_providers()
        if device not in ("auto", "cpu") and not re.fullmatch(r"cuda(:\d+)?", device):
            raise ConfigError(f"unknown device {device!r}: expected auto, cpu, cuda or cuda:1")
        on_gpu = device.startswith("cuda") or (device == "auto" and _CUDA in available)
        if on_gpu and _CUDA not in available:
            raise EncoderUnavailableError(
                f"device {device} was asked for and this onnxruntime has {', '.join(available)}: "
                "pip install onnxruntime-gpu, or use device cpu"
            )
        if n_threads is not None and (
            isinstance(n_threads, bool) or not isinstance(n_threads, int) or n_threads < 1
        ):
            raise ConfigError(f"onnx n_threads must be a positive integer, found {n_threads!r}")
        self._device = ("cuda:0" if device in ("auto", "cuda") else device) if on_gpu else "cpu"
        self._session = _session(runtime, self._path, self._device)
        if on_gpu and _CUDA not in self._session.get_providers():
            # onnxruntime itself goes on with the CPU and says nothing that a caller could see
            if device != "auto":
                raise EncoderUnavailableError(
                    f"device {device} was asked for and onnxruntime could not start CUDA (driver, CUDA and cuDNN "
                    "libraries, number of the GPU?): repair that, or use device cpu"
                )
            _log.warning("onnxruntime could not start CUDA: %s runs on the CPU", self._path)
            self._device = "cpu"
            self._session = _session(runtime, self._path, "cpu")
        self._n_threads = 1 if self._device != "cpu" else (n_threads or available_cores())
        self._resolve(settings)
        self._pool: ThreadPoolExecutor | None = None
        if self._n_threads > 1:
            self._pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="ltstore-onnx")

    def _resolve(self, settings: OnnxSettings) -> None:
        inputs = {each.name: each for each in self._session.get_inputs()}
        outputs = {each.name: each for each in self._session.get_outputs()}
        self._input = _named(settings.input, inputs, "input", self._path)
        self._output = _named(settings.output, outputs, "output", self._path)
        entry = inputs[self._input]
        shape = list(entry.shape)
        if len(shape) != 4 or entry.type not in ("tensor(float)", "tensor(float16)"):
            raise ConfigError(
                f"{self._path}: expected an input of four dimensions and float, found {entry.name} {shape} {entry.type}"
            )
        self._dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
        self._fixed_batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
        layout = settings.layout or ("NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW")
        sides = shape[2:4] if layout == "NCHW" else shape[1:3]
        fixed = [side for side in sides if isinstance(side, int)]
        size = settings.size or (fixed[0] if fixed else None)
        if size is None:
            raise ConfigError(
                f"{self._path} does not fix its input size {shape}: give the setting size, e.g. 224"
            )
        if any(side != size for side in fixed):
            raise ConfigError(f"{self._path} takes {shape} and the setting size is {size}")
        mean = np.broadcast_to(np.asarray(settings.mean, np.float64), (3,))
        if settings.std is not None:
            scale = np.broadcast_to(1.0 / np.asarray(settings.std, np.float64), (3,))
        else:
            scale = np.broadcast_to(
                np.asarray(1 / 255 if settings.scale is None else settings.scale, np.float64), (3,)
            )
        self._mean, self._scale = mean.astype(np.float32), scale.astype(np.float32)
        self._size, self._layout = size, layout
        self._filter, self._crop = _FILTERS[settings.resize], settings.crop
        self._channels = settings.channels
        self._decoding = settings.decoding
        self.least_side = least_side(size, settings.decoding)
        self._preprocessing = {
            "size": size,
            "resize": settings.resize,
            "crop": settings.crop,
            "mean": mean.tolist(),
            "scale": scale.tolist(),
            "layout": layout,
            "channels": settings.channels,
            "input": self._input,
            "output": self._output,
            **recorded(settings.decoding),
        }
        n_features = self._probe(outputs)
        self._identity = EncoderIdentity(
            encoder="onnx",
            model=self._path.name,
            weights_digest=weights_digest(self._path),
            preprocessing=self._preprocessing,
            n_features=n_features,
        )

    def _probe(self, outputs: Mapping[str, Any]) -> int:
        """Return D of the output, which must be one row an image."""
        n = self._fixed_batch or 1
        black = self._fit(Image.new("RGB", (1, 1)))  # loads what resizing needs, before any time is taken
        shape = list(self._raw(np.stack([black] * n)).shape)
        if not shape or shape[0] != n or sum(side != 1 for side in shape[1:]) > 1:
            images = "one image" if n == 1 else f"{n} images"
            raise ConfigError(
                f"{self._path}: output {self._output} has the shape {shape} for {images}, expected one row of "
                f"numbers for each: name another by the setting output (it has {', '.join(outputs)}), or pool it in "
                "the file"
            )
        return int(np.prod(shape[1:]))

    @property
    def identity(self) -> EncoderIdentity:
        """The sha256 of the file (and of those it keeps weights in), and everything between image and embedding."""
        return self._identity

    @property
    def spec(self) -> str:
        """ "onnx:" and the absolute path; the settings are in `identity.preprocessing`."""
        return f"onnx:{self._path.resolve()}"

    @property
    def device(self) -> str:
        """ "cpu" or "cuda:0"."""
        return self._device

    @property
    def preprocess(self) -> Callable[[Image.Image], NDArray[np.uint8]]:
        """RGB image -> (size, size, 3) uint8; mean and scale are applied in `encode`."""
        return self._fit

    def _fit(self, image: Image.Image) -> NDArray[np.uint8]:
        side = self._size
        if image.mode != "RGB":
            image = image.convert("RGB")
        if image.size == (side, side):
            return np.asarray(image)
        box = _center_square(image.width, image.height) if self._crop == "center" else None
        return resized(image, (side, side), self._filter, self._decoding, box)

    def encode(self, batch: NDArray[np.uint8]) -> FloatArray:
        """(n, size, size, 3) uint8 -> (n, D) float32."""
        if not len(batch):
            return np.empty((0, self._identity.n_features), np.float32)
        rows = self._fixed_batch or (1 if self._device == "cpu" else len(batch))
        parts = [batch[i : i + rows] for i in range(0, len(batch), rows)]
        return np.concatenate(list((self._pool.map if self._pool else map)(self._run, parts)))

    def _run(self, batch: NDArray[np.uint8]) -> FloatArray:
        n = len(batch)
        if self._fixed_batch is not None and n < self._fixed_batch:
            batch = np.concatenate([batch, np.zeros((self._fixed_batch - n, *batch.shape[1:]), np.uint8)])
        return self._raw(batch)[:n].reshape(n, -1)

    def _raw(self, batch: NDArray[np.uint8]) -> FloatArray:
        planes = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        if self._channels == "BGR":
            planes = planes[:, ::-1]
        inputs = np.empty(planes.shape, np.float32)
        for channel, (mean, scale) in enumerate(zip(self._mean, self._scale, strict=True)):
            # plane by plane: contiguous reads and writes, a third of the time of one broadcast over pixels
            np.subtract(planes[:, channel], mean, out=inputs[:, channel])
            inputs[:, channel] *= scale
        if self._layout == "NHWC":
            inputs = inputs.transpose(0, 2, 3, 1)
        inputs = np.ascontiguousarray(inputs, dtype=self._dtype)
        return np.asarray(self._session.run([self._output], {self._input: inputs})[0], np.float32)

    def to_onnx(self) -> Any:
        """Return the network with what `encode` does before it: pixels (n, size, size, 3) uint8 -> embeddings (n, D).

        Raises
        ------
        BackendUnavailableError
            onnx is not installed.
        ConfigError
            The file's operators are too old, or its weights do not fit into one file.
        """
        onnx = onnx_package()
        beside = (self._path.parent / name for name in external_files(self._path))
        check_size(sum(each.stat().st_size for each in (self._path, *beside)))
        net = prepared(onnx.load(str(self._path)))
        n, side = self._fixed_batch or "n", self._size
        half, planes = self._dtype == np.float16, self._layout == "NCHW"
        to_float = Step("Cast", settings={"to": onnx.TensorProto.FLOAT})
        before = chain(
            [
                *(
                    [Step("Gather", {"order": np.array([2, 1, 0])}, {"axis": 3})]
                    if self._channels == "BGR"
                    else []
                ),
                to_float,
                Step("Sub", {"mean": self._mean}),
                Step("Mul", {"scale": self._scale}),
                *([Step("Transpose", settings={"perm": [0, 3, 1, 2]})] if planes else []),
                *([Step("Cast", settings={"to": onnx.TensorProto.FLOAT16})] if half else []),
            ],
            takes=Value(PIXELS, "UINT8", [n, side, side, 3]),
            gives=[
                Value(
                    "inputs",
                    "FLOAT16" if half else "FLOAT",
                    [n, 3, side, side] if planes else [n, side, side, 3],
                )
            ],
            like=net,
        )
        output = PREFIX + self._output
        kind = next(each.type.tensor_type.elem_type for each in net.graph.output if each.name == output)
        after = chain(
            [to_float, Step("Flatten", settings={"axis": 1})],
            takes=Value("outputs", onnx.TensorProto.DataType.Name(kind), [n, "features"]),
            gives=[Value(EMBEDDINGS, "FLOAT", [n, self._identity.n_features])],
            like=net,
        )
        whole = joined(before, net, [("inputs", PREFIX + self._input)])
        return joined(whole, after, [(output, "outputs")])


def onnx_encoder(
    path: str | Path,
    *,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
) -> OnnxEncoder:
    """Make an encoder from a file and its settings.

    Settings come from the TOML file `config`, or else from the one beside the ONNX file (same name, ending
    .toml) where there is one, and over them `options`; names and defaults are those of `OnnxSettings`.
    `options` may also hold "n_threads", which changes speed alone.
    """
    settings: dict[str, Any] = {}
    beside = Path(path).with_suffix(".toml")
    if config is not None or beside.is_file():
        settings.update(_read_toml(Path(config) if config is not None else beside))
    if options and {"scale", "std"} & options.keys():
        settings = {name: value for name, value in settings.items() if name not in ("scale", "std")}
    settings.update(options or {})
    n_threads = settings.pop("n_threads", None)
    return OnnxEncoder(path, OnnxSettings.from_mapping(settings), device=device, n_threads=n_threads)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_SETTINGS_BYTES:
            raise ConfigError(f"the encoder's settings {path} are of more than {_LARGEST_SETTINGS_BYTES} bytes")
        return tomllib.loads(path.read_text("utf-8"))
    except ConfigError:
        raise
    except OSError as err:
        raise ConfigError(f"cannot read the encoder's settings {path}: {err.strerror or err}") from err
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"{path} is not TOML: {err}") from err


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as err:
        raise EncoderUnavailableError(
            "onnx encoders need onnxruntime: pip install 'ltstore[onnx]' (onnxruntime-gpu for CUDA)"
        ) from err
    return onnxruntime


def _session(runtime: Any, path: Path, device: str) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only: the library does not print
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        providers.insert(0, (_CUDA, {"device_id": int(device.partition(":")[2] or 0)}))
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as err:
        # onnxruntime's exceptions share no base class
        raise EncoderUnavailableError(f"cannot load {path}: {str(err).splitlines()[0]}") from err


def _named(name: str | None, entries: Mapping[str, Any], what: str, path: Path) -> str:
    if name is None:
        if what == "input" and len(entries) != 1:
            raise ConfigError(f"{path} has the inputs {', '.join(entries)}: give the setting input")
        return next(iter(entries))
    if name not in entries:
        raise ConfigError(f"{path} has no {what} {name!r}: it has {', '.join(entries)}")
    return name


def _center_square(width: int, height: int) -> tuple[float, float, float, float]:
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
