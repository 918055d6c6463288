"""What a report is made from: plain arrays and records, checked for agreement when put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ltstore.backtest import Card
from ltstore.errors import ConfigError, DataError
from ltstore.metrics import Evaluation
from ltstore.quality import Quality
from ltstore.types import BoolArray, Donors, DoubleArray, IntArray

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelResult:
    """One line of the headline table.

    Attributes
    ----------
    name : str
        Unique among the models of a report.
    evaluation : Evaluation
    note : str
        What it is, in a few words ("closed form, no training").
    seconds : float or None
        What it cost to make.
    """

    name: str
    evaluation: Evaluation
    note: str = ""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One image of a class.

    Attributes
    ----------
    image : PIL image
    row_id : int
    class_id : int
        Its label.
    predicted : int or None
        What the chosen model took a test row for; None for a training row.
    """

    image: Image
    row_id: int
    class_id: int
    predicted: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RowMap:
    """Rows laid out in the plane (see `ltstore.report.row_map`).

    Attributes
    ----------
    points : (n, 2) float64
    class_ids : (n,) int64
    synthetic : (n,) bool
    method : str
        How the plane was chosen, for the caption.
    n_rows : int
        Rows of these classes there were, of which n are shown.
    """

    points: DoubleArray
    class_ids: IntArray
    synthetic: BoolArray
    method: str
    n_rows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportData:
    """Everything a report can show; a section whose data is None or empty is left out.

    Attributes
    ----------
    title : str
    class_names : sequence of C str
    class_counts : (C,) int64
        Training rows of each class.
    models : sequence of ModelResult
        At least one, all judged on the same test rows.
    chosen : str
        Name of the model that the report is about; default: the last.
    baseline : str or None
        Name of the model it is compared with; None compares with nothing.
    without_synthesis : str or None
        Name of the model that differs from the chosen one by its synthetic rows alone, where there is one: the section
        on what synthesis changed compares with it; otherwise that section shows the gain over the baseline.
    facts : sequence of (label, value)
        What is known of the dataset and the encoder.
    synthetic_counts : (C,) int64 or None
        Synthetic rows of each class that the chosen model was trained on.
    labels, predictions : (N,) int64 or None
        Test labels (-1 unknown) and the chosen model's predictions.
    baseline_predictions : (N,) int64 or None
        The baseline's predictions on the same rows: they give the paired interval of the difference.
    class_means : (C, D) float64 or None
        For similarities between classes (cosines); zero where a class has no rows.
    donors : Donors or None
    row_maps : mapping of class id to RowMap
        A plane for each of a few classes, with rows of those it is confused with or borrows from.
    examples : mapping of class id to sequence of Example
        Images that tell about a class: some it was trained on, some that were taken for another class, some of that.
    no_examples : str
        Why there are none, where that is worth saying.
    quality : Quality or None
        Of the synthetic rows that the chosen model was trained on.
    card : Card or None
        The backtest of the rows it was trained on.
    card_used : bool
        Whether the chosen model is what that backtest chose.
    provenance : mapping
        JSON values: settings, versions, digests.

    Raises
    ------
    ConfigError
        No model, two of one name, or a chosen or baseline model that is not among them.
    DataError
        Arrays whose lengths do not agree with the classes or with each other.
    """

    title: str
    class_names: Sequence[str]
    class_counts: IntArray
    models: Sequence[ModelResult]
    chosen: str = ""
    baseline: str | None = None
    without_synthesis: str | None = None
    facts: Sequence[tuple[str, str]] = ()
    synthetic_counts: IntArray | None = None
    labels: IntArray | None = None
    predictions: IntArray | None = None
    baseline_predictions: IntArray | None = None
    class_means: DoubleArray | None = None
    donors: Donors | None = None
    row_maps: Mapping[int, RowMap] = field(default_factory=dict)
    examples: Mapping[int, Sequence[Example]] = field(default_factory=dict)
    no_examples: str = ""
    quality: Quality | None = None
    card: Card | None = None
    card_used: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"a report needs at least one model, each of another name, found {names}")
        for role, name in (
            ("chosen", self.chosen or names[-1]),
            ("baseline", self.baseline),
            ("without_synthesis", self.without_synthesis),
        ):
            if name is not None and name not in names:
                raise ConfigError(
                    f"the {role} model {name!r} is not among the evaluated ones: {', '.join(names)}"
                )
        n_classes = len(self.class_names)
        per_class: dict[str, Sequence[Any] | IntArray | DoubleArray | None] = {
            "class_counts": self.class_counts,
            "synthetic_counts": self.synthetic_counts,
            "class_means": self.class_means,
            "donors": None if self.donors is None else self.donors.class_ids,
            "quality": None if self.quality is None else self.quality.intruded,
            **{f"class_accuracy of {model.name}": model.evaluation.class_accuracy for model in self.models},
        }
        for what, values in per_class.items():
            if values is not None and len(values) != n_classes:
                raise DataError(
                    f"{what} must have one entry for each of {n_classes} classes, found {len(values)}"
                )
        for class_id, drawn in self.row_maps.items():
            if (drawn.class_ids >= n_classes).any():
                raise DataError(
                    f"the map of class {class_id} has class {drawn.class_ids.max()}, outside the {n_classes} classes"
                )
        rows = {"predictions": self.predictions, "baseline_predictions": self.baseline_predictions}
        for what, column in rows.items():
            if column is not None and (self.labels is None or len(column) != len(self.labels)):
                n_labels = 0 if self.labels is None else len(self.labels)
                raise DataError(
                    f"{what} must be of the same rows as labels, found {len(column)} and {n_labels}"
                )

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def chosen_model(self) -> ModelResult:
        """The model that the report is about."""
        return next((model for model in self.models if model.name == self.chosen), self.models[-1])

    @property
    def reference_model(self) -> ModelResult | None:
        """The model that gains class by class are counted against: without synthesis, else the baseline."""
        if self.without_synthesis in (None, self.chosen_model.name):
            return self.baseline_model
        return next(model for model in self.models if model.name == self.without_synthesis)

    @property
    def baseline_model(self) -> ModelResult | None:
        """The model it is compared with, None where that is nothing or itself."""
        if self.baseline in (None, self.chosen_model.name):
            return None
        return next(model for model in self.models if model.name == self.baseline)
