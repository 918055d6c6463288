"""Embeddings that exist already, in and out: other people's layouts, without changing a bit.

Its one rule: nothing is dropped, reordered or rounded in silence. Files are untrusted: nothing is unpickled, and
what a header says is compared with the size of the file before memory is asked for.

Start reading at `importing` (the way in) and `layouts` (which files make a source); `exporting` is the way out,
`adoption` reads a foreign Zarr array in place. docs/import-export.md is the user's page.
"""

from ltstore.transfer.adoption import AdoptedRows, adopt
from ltstore.transfer.exporting import EXPORT_FORMATS, ExportReport, export_embeddings
from ltstore.transfer.importing import ImportReport, import_digest, import_embeddings
from ltstore.transfer.layouts import IMPORT_FORMATS

__all__ = [
    "EXPORT_FORMATS",
    "IMPORT_FORMATS",
    "AdoptedRows",
    "ExportReport",
    "ImportReport",
    "adopt",
    "export_embeddings",
    "import_digest",
    "import_embeddings",
]
