"""The steps a person takes, each one function: index, donors, query, sample, train, evaluate, predict, repair, ...

One rule: this room only connects the others. It opens a store, calls a room, and stores what came out with
a record of what it was made from; formulas and formats live below. The command line is a thin face of it.
Start reading in `selection`.
"""

from ltstore.workflow.backtesting import BacktestOutcome, backtest
from ltstore.workflow.class_text import TextResult, embed_class_names
from ltstore.workflow.estimation.budget import CostEstimate, estimate
from ltstore.workflow.evaluation.judging import EvaluateResult, compare, evaluate
from ltstore.workflow.evaluation.reporting import write_evaluation_report
from ltstore.workflow.exporting import ModelExport, export_model
from ltstore.workflow.neighborhood import IndexResult, build_store_index, query_store, store_donors
from ltstore.workflow.prediction import Prediction, predict, predict_arriving, predict_stored
from ltstore.workflow.quickstart import QuickstartResult, quickstart
from ltstore.workflow.repairing import repair
from ltstore.workflow.reproduction.protocol import Reproduction, reproduce
from ltstore.workflow.sampling import SampleResult, sample
from ltstore.workflow.selection import Selection, select
from ltstore.workflow.subsets import SUBSET_RULES, make_subset
from ltstore.workflow.training.ensembling import EnsembleResult, ensemble
from ltstore.workflow.training.head import train
from ltstore.workflow.training.outcome import TrainOutcome

__all__ = [
    "SUBSET_RULES",
    "BacktestOutcome",
    "CostEstimate",
    "EnsembleResult",
    "EvaluateResult",
    "IndexResult",
    "ModelExport",
    "Prediction",
    "QuickstartResult",
    "Reproduction",
    "SampleResult",
    "Selection",
    "TextResult",
    "TrainOutcome",
    "backtest",
    "build_store_index",
    "compare",
    "embed_class_names",
    "ensemble",
    "estimate",
    "evaluate",
    "export_model",
    "make_subset",
    "predict",
    "predict_arriving",
    "predict_stored",
    "query_store",
    "quickstart",
    "repair",
    "reproduce",
    "sample",
    "select",
    "store_donors",
    "train",
    "write_evaluation_report",
]
