"""One HTML file that shows what a long-tailed classifier does, and why.

The room's one rule: a report only shows. It takes numbers that are there already (`ReportData`), chooses and trains
nothing, and leaves out what it has no data for. Class names come from strangers and are escaped everywhere.
Matplotlib, jinja2 and scikit-learn are imported inside the functions that need them.
Start reading at `data`, then `page`; `look` is what a reader should see first, `sheet` shows the images of neighbours,
`lenders` who lends to whom.
"""

from ltstore.report.data import Example, ModelResult, ReportData, RowMap
from ltstore.report.lenders import plot_donors
from ltstore.report.neighbors import worst_classes
from ltstore.report.page import render_report, write_report
from ltstore.report.projection import row_map
from ltstore.report.sheet import Cell, write_sheet

__all__ = [
    "Cell",
    "Example",
    "ModelResult",
    "ReportData",
    "RowMap",
    "plot_donors",
    "render_report",
    "row_map",
    "worst_classes",
    "write_report",
    "write_sheet",
]
