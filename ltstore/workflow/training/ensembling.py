"""Two models as one, e.g. text vectors and a trained head: their logits mixed, with a share chosen on held-out rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltstore.errors import ConfigError, DataError
from ltstore.linear import LinearModel, load_model
from ltstore.linear.mixing import HeadPair, pair_heads
from ltstore.linear.temperature import best_factor, scaled
from ltstore.metrics import class_accuracy
from ltstore.provenance import record
from ltstore.rows import iter_blocks
from ltstore.storage import Place
from ltstore.store import Store
from ltstore.types import UNLABELLED, DoubleArray, IntArray, Rows
from ltstore.workflow.naming import model_names
from ltstore.workflow.selection import Selection, select
from ltstore.workflow.training.head import check_out
from ltstore.workflow.training.holdout import divide
from ltstore.workflow.training.repeating import repeat_training

SHARES = tuple(step / 20 for step in range(21))
_BLOCK_LOGITS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Balanced accuracy on the holdout at one share of the second model."""

    share: float
    balanced: float


@dataclass(frozen=True, kw_only=True)
class EnsembleResult:
    """A mixture of two models.

    Attributes
    ----------
    model : LinearModel
    names : tuple of str
        Of the two.
    share : float
        Of the second model's logits.
    calibration : float
        What the mixed logits were multiplied by; 1 where the share was given.
    trials : tuple of Mixed
        What the share was chosen among; empty where it was given.
    n_holdout : int
        Labelled rows that it was chosen on.
    seconds : float
        The training of members on the other rows included.
    """

    model: LinearModel
    names: tuple[str, ...]
    share: float
    calibration: float
    trials: tuple[Mixed, ...]
    n_holdout: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict, without the weights."""
        return {
            "members": list(self.names),
            "share": self.share,
            "calibration": self.calibration,
            "n_holdout": self.n_holdout,
            "trials": [asdict(trial) for trial in self.trials],
            "seconds": self.seconds,
        }


def ensemble(
    first: Path | str,
    second: Path | str,
    *,
    share: float | str = "auto",
    store: Place | Store | None = None,
    split: str = "train",
    subset: str | None = None,
    holdout: float | str = 0.2,
    seed: int = 0,
    out: Path | str | None = None,
    force: bool = False,
) -> EnsembleResult:
    """Mix the logits of two models: (1 - share) of the first and share of the second, which is a linear head again.

    A share is chosen on rows that no member was trained on: members are trained once more on the other rows, as their
    records tell, and the share with the best balanced accuracy on the held-out rows (of equal ones that nearest to
    even) is applied to the members as they are. So is the factor of the logits under which that mixture explains the
    same rows best (`ltstore.linear.temperature`): a mixture of two heads is less sure than each, and not as sure as
    it is right. The test split is never read.

    Parameters
    ----------
    first, second : path
        Model directories of one encoder and the same classes, e.g. a zero-shot head and a trained one.
    share : float or "auto"
        In [0, 1]. A number needs no store.
    store, split, subset
        The rows that the members were trained on.
    holdout : float or str
        As in `ltstore.workflow.train`: a share of the rows of each class, or a subset or split that shares no row with
        the training rows; members are not trained again then.
    seed : int
        Of a holdout that is a share.
    out, force
        As in `ltstore.workflow.train`.

    Raises
    ------
    ConfigError, DataError, EncoderMismatchError, ModelNotFoundError, StoreExistsError, StoreNotFoundError

    Notes
    -----
    21 shares are tried; their logits are one product of each member with the held-out rows.
    """
    if out is not None:
        check_out(out, force)
    started = time.perf_counter()
    paths = model_names([first, second])
    if len(paths) < 2:
        raise ConfigError(f"{first} was given twice: a mixture is of two models")
    models = {name: load_model(path) for name, path in paths.items()}
    pair = pair_heads(*models.values())
    trials: tuple[Mixed, ...] = ()
    n_holdout, factor = 0, 1.0
    if isinstance(share, str):
        if share != "auto":
            raise ConfigError(f"share must be a number between 0 and 1 or auto, found {share!r}")
        if store is None:
            raise ConfigError(
                "a share is chosen on rows of a store: name it (--store), or give a share (--share)"
            )
        selection = select(store, split, subset)
        selection.require_labels()
        selection.check()
        rows, twins = _held_out(models, selection, holdout, seed)
        n_holdout = int((rows.labels != UNLABELLED).sum())
        if not n_holdout:
            raise DataError("no row of the holdout has a label: a share cannot be chosen on them")
        twin_pair = pair_heads(*twins)
        trials = try_shares(twin_pair, rows)
        chosen = max(trials, key=lambda trial: (trial.balanced, -abs(trial.share - 0.5)))
        found = chosen.share
        factor = best_factor(*twin_pair.mixed(found), rows)
    else:
        found = share
    told = {
        "asked": share,
        "holdout": holdout if trials else None,
        "calibration": factor,
        "trials": [asdict(trial) for trial in trials],
    }
    seconds = time.perf_counter() - started
    model = _mixture(models, scaled(*pair.mixed(found), factor), {"share": found, **told}, seconds)
    if out is not None:
        model.save(out)
    return EnsembleResult(
        model=model,
        names=tuple(models),
        share=found,
        calibration=factor,
        trials=trials,
        n_holdout=n_holdout,
        seconds=seconds,
    )


def try_shares(pair: HeadPair, rows: Rows, shares: Sequence[float] = SHARES) -> tuple[Mixed, ...]:
    """Return the balanced accuracy of every share on labelled rows."""
    labels = rows.labels
    (first_weight, first_bias), (second_weight, second_bias) = (
        (weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in pair
    )
    predicted: IntArray = np.empty((len(shares), rows.n_samples), np.int64)
    for start, X, _ in iter_blocks(rows, max(256, _BLOCK_LOGITS // len(first_bias))):
        logits = X @ first_weight.T + first_bias
        step = X @ second_weight.T + second_bias - logits
        for k, share in enumerate(shares):
            predicted[k, start : start + len(X)] = (logits + np.float32(share) * step).argmax(axis=1)
    by_class = (class_accuracy(labels, column, len(first_bias)) for column in predicted)
    return tuple(
        Mixed(share=share, balanced=float(np.nanmean(accuracy)))
        for share, accuracy in zip(shares, by_class, strict=True)
    )


def _held_out(
    models: dict[str, LinearModel], selection: Selection, holdout: float | str, seed: int
) -> tuple[Rows, list[LinearModel]]:
    """Return rows to choose on, and the members as they are without having seen them."""
    for name, model in models.items():
        made_from = _made_from(model)
        if not made_from.get("class_text") and made_from.get("rows") != selection.rows.digest:
            origin = "/".join(filter(None, (made_from.get("split"), made_from.get("subset")))) or "others"
            raise DataError(
                f"{name} was trained on {origin}, not on the rows of {selection.name!r} as they are now: name its rows "
                "(--split, --subset), or give a share (--share)"
            )
    training, rows, positions = divide(selection, holdout, seed)
    assert rows is not None
    if positions is None:
        return rows, list(models.values())
    twins = []
    for name, model in models.items():
        try:
            twins.append(repeat_training(model, training))
        except ConfigError as err:
            raise ConfigError(f"{name}: {err}; give a share (--share), or a holdout it has not seen") from err
    return rows, twins


def _mixture(
    models: dict[str, LinearModel],
    head: tuple[DoubleArray, DoubleArray],
    told: dict[str, Any],
    seconds: float,
) -> LinearModel:
    """Return the mixture as a model of the rows of the first member that was trained."""
    weight, bias = head
    records = [model.record for model in models.values()]
    trained, *_ = sorted(models.values(), key=lambda model: bool(_made_from(model).get("class_text")))
    settings = {
        "head": "ensemble",
        "ensemble": {"members": list(models), **told},
        "members": [each.get("settings", {}) for each in records],
    }
    seed = next((each["seed"] for each in records if each.get("seed") is not None), None)
    made = record("model", settings=settings, made_from=_made_from(trained), seed=seed)
    counts = [each["synthetic_counts"] for each in records if each.get("synthetic_counts")]
    made["synthetic_counts"] = np.sum([np.zeros_like(trained.class_counts), *counts], axis=0).tolist()
    made["train_seconds"] = seconds + sum(each.get("train_seconds") or 0.0 for each in records)
    return replace(trained, weight=weight.astype(np.float32), bias=bias.astype(np.float32), record=made)


def _made_from(model: LinearModel) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model.record.get("made_from", {})
    return found
