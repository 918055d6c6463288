"""The linear head: objective, solver, closed forms, and the model that is saved.

The one rule: training sees rows only through a stream that it walks over pass by pass, so nothing here needs
the rows in memory. Start reading at `train_linear`, then `objective` and `solver`.
"""

from ltstore.linear.closed_form import Head, gda, nearest_class_mean, ridge
from ltstore.linear.holdout import HoldoutScore
from ltstore.linear.model import LinearModel, load_model
from ltstore.linear.prediction import predict_rows, predict_top
from ltstore.linear.progress import PassRecord
from ltstore.linear.settings import MinibatchSettings, TrainSettings
from ltstore.linear.training import TrainResult, train_closed_form, train_linear

__all__ = [
    "Head",
    "HoldoutScore",
    "LinearModel",
    "MinibatchSettings",
    "PassRecord",
    "TrainResult",
    "TrainSettings",
    "gda",
    "load_model",
    "nearest_class_mean",
    "predict_rows",
    "predict_top",
    "ridge",
    "train_closed_form",
    "train_linear",
]
