"""The steps a person takes, each one function: index, donors, query, sample, train, evaluate, predict, repair, ...

One rule: this room only connects the others. It opens a store, calls a room, and stores what came out with
a record of what it was made from; formulas and formats live below. The command line is a thin face of it.
Start reading in `selection`.
"""

from ltstore.workflow.backtesting import BacktestOutcome, backtest
from ltstore.workflow.class_text import TextResult, embed_class_names
from ltstore.workflow.estimation import CostEstimate, estimate
from ltstore.workflow.evaluation import EvaluateResult, compare, evaluate
from ltstore.workflow.neighborhood import IndexResult, build_store_index, query_store, store_donors
from ltstore.workflow.outcome import TrainOutcome
from ltstore.workflow.prediction import Prediction, predict
from ltstore.workflow.quickstart import QuickstartResult, quickstart
from ltstore.workflow.repairing import repair
from ltstore.workflow.reporting import write_evaluation_report
from ltstore.workflow.sampling import SampleResult, sample
from ltstore.workflow.selection import Selection, select
from ltstore.workflow.subsets import SUBSET_RULES, make_subset
from ltstore.workflow.training import train

__all__ = [
    "SUBSET_RULES",
    "BacktestOutcome",
    "CostEstimate",
    "EvaluateResult",
    "IndexResult",
    "Prediction",
    "QuickstartResult",
    "SampleResult",
    "Selection",
    "TextResult",
    "TrainOutcome",
    "backtest",
    "build_store_index",
    "compare",
    "embed_class_names",
    "estimate",
    "evaluate",
    "make_subset",
    "predict",
    "query_store",
    "quickstart",
    "repair",
    "sample",
    "select",
    "store_donors",
    "train",
    "write_evaluation_report",
]
