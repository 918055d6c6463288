"""ONNX files: settings, preprocessing and what is refused."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import open_encoder
from ltstore.encode.onnx_file import OnnxSettings
from ltstore.encode.onnx_weights import external_files
from ltstore.errors import ConfigError, EncoderUnavailableError
from ltstore.sources import CifarSource, SelectedSource
from support.images import picture
from support.onnx_nets import net_weight, write_net


def embed(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    encoder = open_encoder(f"onnx:{path}", device="cpu", options=options)
    return encoder.encode(encoder.preprocess(image)[None])[0]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return write_net(tmp_path / "net.onnx")


FLAT = Image.new("RGB", (8, 8), (10, 20, 30))


@pytest.mark.parametrize(
    "options, inputs",
    [
        ({}, np.array([10, 20, 30]) / 255),
        ({"mean": 5, "scale": 0.5}, np.array([2.5, 7.5, 12.5])),
        ({"mean": [1, 2, 3], "std": [1, 2, 3]}, np.array([9, 9, 9])),
        ({"channels": "BGR", "scale": 1}, np.array([30, 20, 10])),
    ],
)
def test_mean_scale_and_channels(net: Path, options: dict[str, Any], inputs: np.ndarray) -> None:
    np.testing.assert_allclose(embed(net, FLAT, **options), inputs @ net_weight(), rtol=1e-5)


def test_layouts_agree(tmp_path: Path) -> None:
    image = picture(1, 30, 20)
    planar = embed(write_net(tmp_path / "a.onnx"), image)
    packed = embed(write_net(tmp_path / "b.onnx", layout="NHWC"), image)
    np.testing.assert_allclose(planar, packed, rtol=1e-5)
    free = embed(write_net(tmp_path / "c.onnx", side=None), image, size=8)
    np.testing.assert_allclose(planar, free, rtol=1e-5)


def test_resize_and_crop(net: Path) -> None:
    image = picture(2, 30, 20)
    encoder = open_encoder(f"onnx:{net}", device="cpu", options={"decoding": "full"})
    middle = image.resize((12, 8), Image.Resampling.BICUBIC).crop((2, 0, 10, 8))
    np.testing.assert_array_equal(encoder.preprocess(image), np.asarray(middle))
    options = {"crop": "none", "resize": "bilinear", "decoding": "full"}
    squeezed = open_encoder(f"onnx:{net}", device="cpu", options=options)
    expected = image.resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(squeezed.preprocess(image), np.asarray(expected))


def test_settings_from_toml_are_overruled_by_options(net: Path, tmp_path: Path) -> None:
    net.with_suffix(".toml").write_text("mean = 5\nstd = 2\n")
    np.testing.assert_allclose(embed(net, FLAT), np.array([2.5, 7.5, 12.5]) @ net_weight(), rtol=1e-5)
    np.testing.assert_allclose(embed(net, FLAT, scale=1), np.array([5, 15, 25]) @ net_weight(), rtol=1e-5)
    other = tmp_path / "other.toml"
    other.write_text("scale = 1\n")
    encoder = open_encoder(f"onnx:{net}", config=other)
    assert encoder.identity.preprocessing["mean"] == [0, 0, 0]
    other.write_text("scale = \n")
    with pytest.raises(ConfigError, match="is not TOML"):
        open_encoder(f"onnx:{net}", config=other)
    with pytest.raises(ConfigError, match="cannot read the encoder's settings"):
        open_encoder(f"onnx:{net}", config=tmp_path / "absent.toml")


def test_identity_holds_the_file_and_the_preprocessing(net: Path, tmp_path: Path) -> None:
    identity = open_encoder(f"onnx:{net}").identity
    assert identity.weights_digest.startswith("sha256:")
    assert open_encoder(f"onnx:{net}", options={"n_threads": 1}).identity == identity
    assert open_encoder(f"onnx:{net}", options=dict(identity.preprocessing)).identity == identity
    assert open_encoder(f"onnx:{net}", options={"mean": 1}).identity.differences(identity)
    (tmp_path / "d").mkdir()
    other = write_net(tmp_path / "d" / "net.onnx", side=9)
    assert open_encoder(f"onnx:{other}").identity.weights_digest != identity.weights_digest


def test_outputs_by_name(tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx", extra_output=True)
    assert embed(net, FLAT).shape == (3,)
    assert embed(net, FLAT, output="embedding").shape == (5,)
    with pytest.raises(ConfigError, match="has no output 'logits': it has mean, embedding"):
        embed(net, FLAT, output="logits")
    with pytest.raises(ConfigError, match="has no input 'x': it has image"):
        embed(net, FLAT, input="x")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sise": 8}, r"unknown setting 'sise' of an onnx encoder: did you mean size, resize\?"),
        ({"size": 16}, "the setting size is 16"),
        ({"size": 0}, "positive integer"),
        ({"resize": "cubic"}, "resize must be one of"),
        ({"mean": [1, 2]}, "a number or three"),
        ({"mean": "a"}, "a number or three"),
        ({"std": 0}, "std not 0"),
        ({"std": 1, "scale": 1}, "both scale and std"),
        ({"layout": "CHW"}, "layout must be one of NCHW, NHWC"),
    ],
)
def test_settings_that_are_refused(net: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        embed(net, FLAT, **options)


def test_a_free_input_size_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the setting size"):
        embed(write_net(tmp_path / "net.onnx", side=None), FLAT)


def test_what_cannot_be_loaded(tmp_path: Path, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderUnavailableError, match="no ONNX file"):
        open_encoder(f"onnx:{tmp_path / 'absent.onnx'}")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(EncoderUnavailableError, match="cannot load"):
        open_encoder(f"onnx:{tmp_path / 'bad.onnx'}")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(EncoderUnavailableError, match="onnxruntime-gpu, or use device cpu"):
            open_encoder(f"onnx:{net}", device="cuda")
    real_import = builtins.__import__

    def no_runtime(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_runtime)
    with pytest.raises(EncoderUnavailableError, match=r"pip install 'ltstore\[onnx\]'"):
        open_encoder(f"onnx:{net}")


def test_a_row_has_the_same_bits_in_every_batch(net: Path) -> None:
    encoder = open_encoder(f"onnx:{net}", device="cpu")
    batch = np.stack([encoder.preprocess(picture(i)) for i in range(9)])
    whole = encoder.encode(batch)
    assert (encoder.encode(batch[4:7]) == whole[4:7]).all()
    assert (open_encoder(f"onnx:{net}", device="cpu", options={"n_threads": 1}).encode(batch) == whole).all()
    assert encoder.encode(batch[:0]).shape == (0, 5)


def test_no_settings_are_the_defaults() -> None:
    assert OnnxSettings.from_mapping({}) == OnnxSettings()


@pytest.mark.slow
def test_mobilenet_agrees_with_the_published_embeddings(real_data: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = {"size": 224, "mean": 127, "scale": 0.0078431, "resize": "bicubic"}
    encoder = open_encoder(f"onnx:{real_data / 'encoder' / 'mobilenet_v2_embed.onnx'}", options=options)
    source = CifarSource(real_data / "cifar100" / "cifar-100-python.tar.xz", "test")
    images = [SelectedSource(source, range(16)).read(i) for i in range(16)]
    X = encoder.encode(np.stack([encoder.preprocess(image) for image in images]))
    stored = np.load(real_data / "cifar100" / "mobilenetv2_embeddings_u8.npz")
    published = stored["test_q"][:16] * stored["scale"]
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(X, published, strict=True)]
    assert np.mean(correlation) > 0.94  # published from an 8-bit network; channels swapped gives 0.72


def external_net(path: Path, value: float) -> Path:
    """Write a network whose only weight lies in a file beside it."""
    onnx = pytest.importorskip("onnx")
    path.parent.mkdir()
    model = onnx.load(str(write_net(path)))
    weight = onnx.numpy_helper.from_array(np.full((3, 5), value, np.float32), "weight")
    model.graph.initializer[0].CopyFrom(weight)
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    assert (path.parent / "net.onnx.data").is_file()
    return path


def test_identity_holds_the_weights_that_lie_beside_the_file(tmp_path: Path) -> None:
    ones, again, twos = (
        external_net(tmp_path / name / "net.onnx", v) for name, v in zip("abc", (1, 1, 2), strict=True)
    )
    assert ones.read_bytes() == twos.read_bytes()
    assert (embed(ones, FLAT) != embed(twos, FLAT)).all()
    one = open_encoder(f"onnx:{ones}").identity
    assert open_encoder(f"onnx:{again}").identity == one
    assert open_encoder(f"onnx:{twos}").identity != one
    (ones.parent / "net.onnx.data").unlink()
    with pytest.raises(EncoderUnavailableError, match=r"net\.onnx"):
        open_encoder(f"onnx:{ones}")


def test_external_files_are_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    def outside(location: str) -> Any:
        tensor = TensorProto(name=location, data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="offset", value="0")
        return tensor

    inner = helper.make_graph([], "inner", [], [], [outside("graph")])
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=inner, value=outside("attribute"))]
    graph = helper.make_graph(nodes, "net", [], [], [outside("initializer")])
    function = helper.make_function(
        "d", "f", [], ["y"], [helper.make_node("C", [], ["y"], v=outside("function"))], []
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(helper.make_model(graph, functions=[function]).SerializeToString())
    assert external_files(path) == ["attribute", "function", "graph", "initializer"]
    assert external_files(write_net(tmp_path / "own.onnx")) == []
    assert onnx is not None
    for broken in (b"\x3a\xff\x01a", b"\x3a", b"\x07"):
        path.write_bytes(broken)
        with pytest.raises(EncoderUnavailableError, match="it is not ONNX"):
            external_files(path)


class FellBack:
    """An onnxruntime that lists CUDA and cannot start it: sessions quietly run on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import onnxruntime

        real = onnxruntime.InferenceSession
        self.asked: list[list[str]] = []

        def session(path: str, options: Any, providers: list[Any]) -> Any:
            self.asked.append([each if isinstance(each, str) else each[0] for each in providers])
            return real(path, options, providers=["CPUExecutionProvider"])

        both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)


def test_a_cuda_that_does_not_start_is_not_claimed(
    net: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = FellBack(monkeypatch)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(
            EncoderUnavailableError, match=f"device {device} was asked for .*could not start CUDA"
        ):
            open_encoder(f"onnx:{net}", device=device)
    runtime.asked.clear()
    encoder = open_encoder(f"onnx:{net}", options={"n_threads": 3})
    assert (encoder.device, encoder._n_threads) == ("cpu", 3)  # type: ignore[attr-defined]
    assert runtime.asked == [["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]]
    assert "could not start CUDA" in caplog.text


@pytest.mark.parametrize("value", ["x", 0, -1, 1.5, True])
def test_n_threads_is_a_positive_integer(net: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match="onnx n_threads must be a positive integer"):
        open_encoder(f"onnx:{net}", options={"n_threads": value})


def shaped_net(path: Path, batch: int | str, shape: list[int]) -> Path:
    """Write a network that flattens an 8 x 8 image and cuts the numbers into `shape`."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    to = numpy_helper.from_array(np.array([-1 if isinstance(batch, str) else batch, *shape]), "to")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "to"], ["tokens"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [batch, *shape])],
        [to],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_file_that_fixes_its_batch_is_run_in_batches_of_that_size(tmp_path: Path, fixed: int) -> None:
    encoder = open_encoder(f"onnx:{shaped_net(tmp_path / 'net.onnx', fixed, [192])}", device="cpu")
    free = open_encoder(f"onnx:{shaped_net(tmp_path / 'free.onnx', 'N', [192])}", device="cpu")
    batch = np.stack([encoder.preprocess(picture(i)) for i in range(9)])
    for n in (9, 8, 3, 0):
        np.testing.assert_array_equal(encoder.encode(batch[:n]), free.encode(batch[:n]))


def test_an_output_that_is_not_one_row_an_image_is_refused(tmp_path: Path) -> None:
    squeezed = open_encoder(f"onnx:{shaped_net(tmp_path / 'a.onnx', 'N', [192, 1, 1])}", device="cpu")
    assert squeezed.identity.n_features == 192
    with pytest.raises(
        ConfigError, match=r"output tokens has the shape \[1, 64, 3\] for one image.*it has tokens"
    ):
        open_encoder(f"onnx:{shaped_net(tmp_path / 'b.onnx', 'N', [64, 3])}", device="cpu")
    path = shaped_net(tmp_path / "c.onnx", "N", [64, 3])
    with pytest.raises(ConfigError, match=r"output tokens has the shape"):
        open_encoder(f"onnx:{path}", device="cpu", options={"output": "tokens"})
