"""open_clip models: weights, features, preprocessing and what is refused. Random weights of a small architecture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ltstore.encode import open_encoder
from ltstore.encode.open_clip_model import _remove_projection
from ltstore.errors import ConfigError, EncoderMismatchError, EncoderUnavailableError
from support.images import picture

open_clip = pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")

ARCH = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def encoder() -> Any:
    return open_encoder(f"open_clip:{ARCH}/random", device="cpu")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return open_clip.create_model(ARCH).eval()


@pytest.fixture(scope="module")
def batch(encoder: Any) -> np.ndarray:
    return np.stack([encoder.preprocess(picture(i, 300, 240 + i)) for i in range(3)])


def test_it_equals_open_clips_own_transform_and_encode_image(
    encoder: Any, model: Any, batch: np.ndarray
) -> None:
    full = open_encoder(f"open_clip:{ARCH}/random", device="cpu", options={"decoding": "full"})
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), False
    )
    images = [picture(i, 300, 240 + i) for i in range(3)]
    inputs = torch.stack([transform(image) for image in images])
    with torch.no_grad():
        expected = model.encode_image(inputs).numpy()
    exact = np.stack([full.preprocess(image) for image in images])
    np.testing.assert_allclose(full.encode(exact), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(batch.astype(int) - exact).mean() < 0.1
    assert (full.least_side, encoder.least_side) == (None, 2 * batch.shape[1])
    assert full.identity.differences(encoder.identity) == ["preprocessing.decoding: not set / fast"]


@pytest.mark.parametrize("decoding", ["full", "fast"])
def test_a_very_long_image_is_cut_before_it_is_resized(decoding: str) -> None:
    encoder = open_encoder(f"open_clip:{ARCH}/random", device="cpu", options={"decoding": decoding})
    line = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1, 100_000, 3), np.uint8))
    middle = line.crop((49_990, 0, 50_010, 1))
    for turned in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180):
        np.testing.assert_array_equal(
            encoder.preprocess(line.transpose(turned)), encoder.preprocess(middle.transpose(turned))
        )


def test_random_weights_are_named_and_seeded(encoder: Any) -> None:
    assert encoder.identity.weights == "random (seed 0)"
    other = open_encoder(f"open_clip:{ARCH}/random", device="cpu", options={"seed": 1})
    assert other.identity.weights == "random (seed 1)"
    assert other.identity.weights_digest != encoder.identity.weights_digest
    with pytest.raises(ConfigError, match=r"did you mean seed\?"):
        open_encoder(f"open_clip:{ARCH}/random", options={"sed": 1})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_has_the_digest_of_its_tensors(
    encoder: Any, model: Any, batch: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)
    else:
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    found = open_encoder(f"open_clip:{ARCH}/{path}", device="cpu")
    assert found.identity.weights == path.name
    assert found.identity.weights_digest == encoder.identity.weights_digest
    np.testing.assert_array_equal(found.encode(batch), encoder.encode(batch))


def test_checkpoints_that_do_not_fit_or_cannot_be_read(model: Any, tmp_path: Path) -> None:
    state = model.state_dict()
    torch.save({name: value for name, value in state.items() if name != "visual.proj"}, tmp_path / "short.pt")
    with pytest.raises(EncoderMismatchError, match=f"do not fit {ARCH}"):
        open_encoder(f"open_clip:{ARCH}/{tmp_path / 'short.pt'}")
    for content in (b"", b"not a checkpoint"):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(EncoderUnavailableError, match="cannot read the weights in"):
            open_encoder(f"open_clip:{ARCH}/{tmp_path / 'bad.pt'}")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return (os.system, ("touch evil-ran",))

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(EncoderUnavailableError, match="cannot read the weights in"):
        open_encoder(f"open_clip:{ARCH}/{tmp_path / 'evil.pt'}")
    assert not (tmp_path / "evil-ran").exists()


def test_penultimate_features_are_what_the_projection_gets(encoder: Any, model: Any, batch: np.ndarray) -> None:
    before = open_encoder(f"open_clip:{ARCH}/random", device="cpu", features="penultimate")
    assert before.identity.features == "penultimate"
    X = before.encode(batch)
    np.testing.assert_allclose(
        X @ model.visual.proj.detach().numpy(), encoder.encode(batch), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ConfigError, match="text shares a space with projected features only"):
        before.encode_text(["a"])


def test_both_kinds_of_features_come_of_one_pass_in_the_order_asked_for() -> None:
    features = "penultimate,projected"
    spec = f"open_clip:{ARCH}/random"
    both = open_encoder(spec, device="cpu", features=features)
    batch = np.stack([both.preprocess(picture(i, 300, 240)) for i in range(2)])
    start, X = 0, both.encode(batch)
    for part, kind in zip(both.parts, features.split(","), strict=True):  # type: ignore[attr-defined]
        alone = open_encoder(spec, device="cpu", features=kind)
        assert part == alone.identity
        np.testing.assert_allclose(
            X[:, start : start + part.n_features], alone.encode(batch), rtol=1e-4, atol=1e-5
        )
        start += part.n_features
    assert start == both.identity.n_features == X.shape[1]
    with pytest.raises(ConfigError, match="text shares a space with projected features only"):
        both.encode_text(["a"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("tower", ["vit", "resnet", "timm"])
def test_a_tower_is_cut_before_its_projection(tower: str) -> None:
    with torch.random.fork_rng():
        if tower == "vit":
            visual = open_clip.transformer.VisionTransformer(32, 16, 12, 1, 2, 4.0, output_dim=5)
        elif tower == "resnet":
            visual = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], 5, heads=2, image_size=32, width=4)
        else:
            visual = open_clip.timm_model.TimmModel("test_vit", 5, image_size=32, pool="", proj="mlp")
        inputs = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        whole = visual.eval()(inputs)
        projection = _remove_projection(torch, visual, tower)
        before = visual(inputs)
        torch.testing.assert_close(projection(before), whole)
    assert before.shape[1] != whole.shape[1] == 5


def test_a_tower_without_a_projection_has_one_kind_of_features() -> None:
    with pytest.raises(ConfigError, match="odd has no projection to leave out: use features projected"):
        _remove_projection(torch, torch.nn.Linear(2, 3), "odd")


@pytest.mark.parametrize(
    "features", ["", "pooled", "projected,projected", "projected,", "projected, penultimate"]
)
def test_features_that_are_none(features: str) -> None:
    with pytest.raises(ConfigError, match=r"or both of them \(projected,penultimate\), found"):
        open_encoder(f"open_clip:{ARCH}/random", features=features)


def test_names_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match=r"no architecture 'ViT-B32': did you mean ViT-B-32"):
        open_encoder("open_clip:ViT-B32/openai")
    with pytest.raises(ConfigError, match=r"no tag 'laion2b', and no file is there: did you mean laion2b_"):
        open_encoder("open_clip:ViT-B-32/laion2b")
    with pytest.raises(
        ConfigError, match=r"names no weights: choose open_clip:ViT-B-32/TAG with a tag of .*datacomp"
    ):
        open_encoder("open_clip:ViT-B-32")
    with pytest.raises(ConfigError, match="no weights are published for it, give a checkpoint"):
        open_encoder(f"open_clip:{ARCH}/openai")
    with pytest.raises(ConfigError, match="unknown device 'gpu7'"):
        open_encoder(f"open_clip:{ARCH}/random", device="gpu7")
    if not torch.cuda.is_available():
        with pytest.raises(EncoderUnavailableError, match="torch finds no CUDA GPU: use device cpu"):
            open_encoder(f"open_clip:{ARCH}/random", device="cuda")


def test_the_activation_must_be_the_one_the_weights_were_trained_with() -> None:
    with pytest.raises(
        EncoderMismatchError, match="QuickGELU and ViT-B-32 has GELU: use open_clip:ViT-B-32-quickgelu/openai"
    ):
        open_encoder("open_clip:ViT-B-32/openai")


def test_a_download_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("Failed to download\nand more lines")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(
        EncoderUnavailableError, match=r"cannot download open_clip:ViT-B-32/laion2b_s34b_b79k .*HF_HUB_CACHE"
    ) as e:
        open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert "\n" not in str(e.value)


def test_opening_leaves_logging_and_random_numbers_alone(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, filters = list(root.handlers), list(root.filters)
    torch.manual_seed(7)
    expected = torch.rand(3).tolist()
    torch.manual_seed(7)
    open_encoder(f"open_clip:{ARCH}/random", device="cpu")
    assert torch.rand(3).tolist() == expected
    assert (root.handlers, root.filters) == (handlers, filters)
    assert capfd.readouterr() == ("", "")


def test_a_spec_holds_the_seed_and_where_the_checkpoint_lies(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded = open_encoder(f"open_clip:{ARCH}/random", device="cpu", options={"seed": 3})
    assert seeded.spec == f"open_clip:{ARCH}/random:3"
    assert open_encoder(seeded.spec, device="cpu").identity == seeded.identity
    (tmp_path / "models").mkdir()
    torch.save(model.state_dict(), tmp_path / "models" / "w.pt")
    monkeypatch.chdir(tmp_path)
    found = open_encoder(f"open_clip:{ARCH}/models/w.pt", device="cpu")
    assert found.spec == f"open_clip:{ARCH}/{(tmp_path / 'models' / 'w.pt').resolve()}"


def test_a_checkpoint_takes_the_settings_of_the_tag_before_it(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pt"
    torch.save(model.state_dict(), path)
    published = open_clip.pretrained._PRETRAINED
    half = {"url": "", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setitem(published, ARCH, {"half": half, "quick": {**half, "quick_gelu": True}})
    found = open_encoder(f"open_clip:{ARCH}/half@{path}", device="cpu")
    assert found.identity.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert found.spec == f"open_clip:{ARCH}/half@{path.resolve()}"
    assert open_encoder(found.spec, device="cpu").identity == found.identity
    with pytest.raises(ConfigError, match=rf"name the tag .* open_clip:{ARCH}/TAG@.*half, quick"):
        open_encoder(f"open_clip:{ARCH}/{path}", device="cpu")
    with pytest.raises(EncoderMismatchError, match="trained with QuickGELU"):
        open_encoder(f"open_clip:{ARCH}/quick@{path}", device="cpu")
    with pytest.raises(EncoderUnavailableError, match="no checkpoint"):
        open_encoder(f"open_clip:{ARCH}/half@{tmp_path / 'absent.pt'}", device="cpu")
    plain = {"url": "", "mean": (0.48145466, 0.4578275, 0.40821073), "interpolation": "bicubic"}
    monkeypatch.setitem(published, ARCH, {"plain": plain})
    assert open_encoder(f"open_clip:{ARCH}/{path}", device="cpu").identity != found.identity


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_devices_that_it_does_not_run_on(device: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown device '{device}': expected auto, cpu, cuda or cuda:1"):
        open_encoder(f"open_clip:{ARCH}/random", device=device)
