"""timm models: weights, preprocessing and what is refused. Random weights of timm's smallest architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltstore.encode import open_encoder
from ltstore.errors import ConfigError, EncoderMismatchError, EncoderUnavailableError
from support.images import picture

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

ARCH, TAG = "test_vit", "r160_in1k"


@pytest.fixture(scope="module")
def encoder() -> Any:
    return open_encoder(f"timm:{ARCH}/random", device="cpu")


@pytest.fixture(scope="module")
def model() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(ARCH, num_classes=0).eval()


@pytest.fixture(scope="module")
def batch(encoder: Any) -> np.ndarray:
    return np.stack([encoder.preprocess(picture(i, 300, 240 + i)) for i in range(3)])


def test_it_equals_timms_own_transform_and_pooled_features(encoder: Any, model: Any, batch: np.ndarray) -> None:
    full = open_encoder(f"timm:{ARCH}/random", device="cpu", options={"decoding": "full"})
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    inputs = torch.stack([transform(picture(i, 300, 240 + i)) for i in range(3)])
    with torch.no_grad():
        expected = model(inputs).numpy()
    found = full.encode(np.stack([full.preprocess(picture(i, 300, 240 + i)) for i in range(3)]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    fast = encoder.encode(batch)  # resized by other kernels: the same but for rounding
    assert (
        np.vecdot(fast, expected) / np.linalg.norm(fast, axis=1) / np.linalg.norm(expected, axis=1) > 0.999
    ).all()
    assert (encoder.least_side, full.least_side) == (2 * 169, None)  # of 160 / 0.95
    assert full.identity.differences(encoder.identity) == ["preprocessing.decoding: not set / fast"]
    assert full.identity.preprocessing == {
        "size": [160, 160],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }


def test_random_weights_are_named_and_seeded(encoder: Any) -> None:
    assert encoder.identity.weights == "random (seed 0)"
    other = open_encoder(f"timm:{ARCH}/random", device="cpu", options={"seed": 1})
    assert other.spec == f"timm:{ARCH}/random:1"
    assert other.identity.weights_digest != encoder.identity.weights_digest
    with pytest.raises(ConfigError, match=r"did you mean seed\?"):
        open_encoder(f"timm:{ARCH}/random", options={"sed": 1})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_is_the_same_encoder_whatever_its_classifier(
    encoder: Any, model: Any, batch: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {**model.state_dict(), "head.weight": torch.ones(5, 64), "head.bias": torch.ones(5)}
    if suffix == ".pt":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    found = open_encoder(f"timm:{ARCH}/{TAG}@{path}", device="cpu")
    assert found.identity == encoder.identity
    assert found.identity.weights == f"{TAG}@{path.name}"
    assert open_encoder(found.spec, device="cpu").identity == encoder.identity
    np.testing.assert_array_equal(found.encode(batch), encoder.encode(batch))


def test_checkpoints_that_do_not_fit_or_cannot_be_read(model: Any, tmp_path: Path) -> None:
    path, state = tmp_path / "w.pt", model.state_dict()
    for wrong in ({k: v for k, v in state.items() if k != "norm.weight"}, {**state, "more": torch.ones(2)}):
        torch.save(wrong, path)
        with pytest.raises(EncoderMismatchError, match=f"do not fit {ARCH}"):
            open_encoder(f"timm:{ARCH}/{path}", device="cpu")
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(EncoderUnavailableError, match="cannot read the weights in"):
        open_encoder(f"timm:{ARCH}/{path}", device="cpu")
    with pytest.raises(EncoderUnavailableError, match="no checkpoint"):
        open_encoder(f"timm:{ARCH}/{TAG}@{tmp_path / 'absent.pt'}", device="cpu")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return (os.system, ("touch evil-ran",))

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(EncoderUnavailableError, match="cannot read the weights in"):
        open_encoder(f"timm:{ARCH}/{tmp_path / 'evil.pt'}")
    assert not (tmp_path / "evil-ran").exists()


def test_names_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no architecture 'resnet81': did you mean .*resnet18"):
        open_encoder("timm:resnet81/a1_in1k")
    with pytest.raises(ConfigError, match="no architecture"):
        open_encoder(f"timm:{ARCH}.{TAG}/random")
    with pytest.raises(ConfigError, match=r"no tag 'a1_in1', and no file is there: did you mean a1_in1k"):
        open_encoder("timm:resnet18/a1_in1")
    with pytest.raises(ConfigError, match=f"names no weights: choose timm:{ARCH}/TAG with a tag of {TAG}"):
        open_encoder(f"timm:{ARCH}")
    with pytest.raises(ConfigError, match="features penultimate is for open_clip"):
        open_encoder(f"timm:{ARCH}/random", features="penultimate")
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(
        ConfigError, match=r"differ in preprocessing: name the tag .*timm:resnet18/TAG@.*a1_in1k"
    ):
        open_encoder(f"timm:resnet18/{tmp_path / 'w.pt'}")


def test_a_download_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, pretrained: bool, num_classes: int) -> Any:
        assert (name, pretrained) == (f"{ARCH}.{TAG}", True)
        raise OSError("We couldn't connect\nand more lines")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        EncoderUnavailableError, match=rf"cannot download timm:{ARCH}/{TAG} .*HF_HUB_CACHE"
    ) as e:
        open_encoder(f"timm:{ARCH}/{TAG}", device="cpu")
    assert "\n" not in str(e.value)
