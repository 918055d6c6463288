# %% [markdown]
# # ltstore from Python
#
# The tutorial (tutorial.md) as a notebook. Open this file in VS Code, PyCharm or Jupyter (with jupytext), run it cell
# by cell, or run it whole in an empty directory (`python notebook.py`). It downloads nothing and takes a minute.

# %% [markdown]
# ## Images
#
# scikit-learn's handwritten digits as class folders, with a long tail: 120 zeros in the training set, 4 nines.

# %%
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import ltstore

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
digits = load_digits()


def save(row: int, path: Path) -> None:
    """Write one digit as a PNG of 64 x 64 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (digits.images[row] * (255 / 16)).astype(np.uint8)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(path)


for label, (name, size) in enumerate(zip(NAMES, np.geomspace(120, 4, 10).astype(int), strict=True)):
    rows = np.flatnonzero(digits.target == label)
    for row in rows[:size]:
        save(row, Path("photos", "train", name, f"{row:04d}.png"))
    for row in rows[120:160]:
        save(row, Path("photos", "test", name, f"{row:04d}.png"))
    save(rows[160], Path("photos", "new", f"{name}.png"))

# %% [markdown]
# ## Images into a store
#
# For photographs take a real encoder: `ltstore.open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")`.

# %%
encoder = ltstore.open_encoder("pixels:8x8:gray")
for split in ("train", "test"):
    report = ltstore.ingest(ltstore.open_source(f"photos/{split}"), encoder, "digits.zarr", split)
    print(f"{split}: {report.n_rows} images, {report.n_failed} of them unreadable")

# %% [markdown]
# A store is a Zarr group on disk. Rows come back as arrays, at unit norm.

# %%
store = ltstore.open_store("digits.zarr")
train_rows = store.split("train").rows()
X = train_rows.read(0, train_rows.n_samples)
print(X.shape, X.dtype, dict(zip(store.class_names, np.bincount(train_rows.labels).tolist(), strict=True)))

# %% [markdown]
# ## Which large classes can help the small ones?

# %%
_, donors = ltstore.store_donors(store)
classes = store.class_names  # sorted by name: a label is a position in it
lent = {}
for name in ("eight", "nine"):
    c = classes.index(name)
    lent[name] = [classes[d] for d in donors.class_ids[c] if d >= 0]
    print(name, "borrows from", lent[name], donors.weights[c].round(2))

# %% [markdown]
# ## Three models
#
# Plain cross entropy; logit adjustment, the default; and logit adjustment with synthetic rows for the small classes.

# %%
ltstore.train(store, settings=ltstore.TrainSettings(loss="ce"), out="models/plain", force=True)
ltstore.train(store, out="models/adjusted", force=True)
outcome = ltstore.train(store, sampler="neighbor-gauss", out="models/synthetic", force=True)
print(f"{outcome.n_real} real and {outcome.targets.sum()} synthetic rows, {outcome.n_passes} passes")

# %% [markdown]
# ## Which one is better?
#
# The test images are looked at here and nowhere else.

# %%
result = ltstore.evaluate(["models/plain", "models/adjusted", "models/synthetic"], store, report="report.html")
for judged in result.models:
    balanced, few = judged.evaluation.balanced, judged.evaluation.few
    gain, low, high = judged.gain
    print(
        f"{judged.name:<10} balanced {balanced.value:.1%}, few {few.value:.1%}, "
        f"overall gain {gain:+.1%} [{low:+.1%}, {high:+.1%}]"
    )

# %% [markdown]
# ## New images, and a file to ship

# %%
model = ltstore.load_model("models/synthetic")
new = ltstore.open_source("photos/new", labelled=False)
answers = {Path(one.key).stem: one.classes[0] for one in ltstore.predict(model, new, encoder)}
print(answers)

# %%
Path("digits.safetensors").unlink(missing_ok=True)
print(ltstore.export_model(model, "digits.safetensors", format="safetensors"))
