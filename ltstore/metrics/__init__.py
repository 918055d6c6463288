"""Accuracy where classes are unequal: per class, per group of training size, with bootstrap intervals.

Pure NumPy. The one rule: rows without a label are skipped and counted, and what cannot be measured (a class
without test rows, a group without classes) is NaN or None, never 0. Start reading at `evaluation`.
"""

from ltstore.metrics.accuracy import class_accuracy, confusion, confusion_pairs, count_groups
from ltstore.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from ltstore.metrics.calibration import expected_calibration_error
from ltstore.metrics.evaluation import Estimate, Evaluation, WorstClass, evaluate_predictions

__all__ = [
    "Estimate",
    "Evaluation",
    "WorstClass",
    "bootstrap_interval",
    "class_accuracy",
    "confusion",
    "confusion_pairs",
    "count_groups",
    "evaluate_predictions",
    "expected_calibration_error",
    "paired_bootstrap",
]
