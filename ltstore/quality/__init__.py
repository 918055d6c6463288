"""How good synthetic rows are, beside what real rows give for the same measure.

Its one rule: no figure stands alone. In high dimension the size of a measure says little, so every one is taken of real
rows too, with as many rows and the same k.

Start reading at `manifold`, `spectrum` and `surroundings` (the measures), then `held_out` and `made` (what they
are taken of) and `table` (how they are kept).
"""

from ltstore.quality.held_out import K, measure_held_out
from ltstore.quality.made import MAX_ROWS, measure_made
from ltstore.quality.manifold import coverage, density, precision, recall
from ltstore.quality.spectrum import spectrum_overlap, subspace_capture, variance_ratio
from ltstore.quality.surroundings import Surroundings, class_spacing, surroundings
from ltstore.quality.table import ClassTable, Quality

__all__ = [
    "MAX_ROWS",
    "ClassTable",
    "K",
    "Quality",
    "Surroundings",
    "class_spacing",
    "coverage",
    "density",
    "measure_held_out",
    "measure_made",
    "precision",
    "recall",
    "spectrum_overlap",
    "subspace_capture",
    "surroundings",
    "variance_ratio",
]
