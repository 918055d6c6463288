"""Accuracy where classes are unequal: per class, per group of training size, with bootstrap intervals.

Pure NumPy. The one rule: rows without a label are skipped and counted, and what cannot be measured (a class
without test rows, a group without classes) is NaN or None, never 0. Start reading at `evaluation`, and at `paired` for
several models.
"""

from ltstore.metrics.accuracy import class_accuracy, confusion, confusion_pairs, count_groups
from ltstore.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from ltstore.metrics.calibration import ReliabilityBins, expected_calibration_error, reliability_bins
from ltstore.metrics.evaluation import Evaluation, WorstClass, evaluate_predictions
from ltstore.metrics.paired import MEASURES, Difference, Estimate, PairedAccuracy, holm, paired_accuracy

__all__ = [
    "MEASURES",
    "Difference",
    "Estimate",
    "Evaluation",
    "PairedAccuracy",
    "ReliabilityBins",
    "WorstClass",
    "bootstrap_interval",
    "class_accuracy",
    "confusion",
    "confusion_pairs",
    "count_groups",
    "evaluate_predictions",
    "expected_calibration_error",
    "holm",
    "paired_accuracy",
    "paired_bootstrap",
    "reliability_bins",
]
