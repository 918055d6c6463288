"""The linear head: objective, solver, closed forms, and the model that is saved.

The one rule: training sees rows only through a stream that it walks over pass by pass, so nothing here needs
the rows in memory. Start reading at `train_linear`, then `objective` and `solver`.
"""

from ltstore.linear.checkpoint import Checkpointing
from ltstore.linear.closed_form import Head, gda, nearest_class_mean, ridge, train_closed_form
from ltstore.linear.grid import expand_grid
from ltstore.linear.holdout import HoldoutScore
from ltstore.linear.model import LinearModel, load_model
from ltstore.linear.origin import Origin
from ltstore.linear.prediction import predict_rows, predict_top
from ltstore.linear.progress import PassRecord
from ltstore.linear.result import TrainResult, best_of
from ltstore.linear.settings import MinibatchSettings, TrainSettings
from ltstore.linear.training import refit_linear, train_grid, train_linear

__all__ = [
    "Checkpointing",
    "Head",
    "HoldoutScore",
    "LinearModel",
    "MinibatchSettings",
    "Origin",
    "PassRecord",
    "TrainResult",
    "TrainSettings",
    "best_of",
    "expand_grid",
    "gda",
    "load_model",
    "nearest_class_mean",
    "predict_rows",
    "predict_top",
    "refit_linear",
    "ridge",
    "train_closed_form",
    "train_grid",
    "train_linear",
]
