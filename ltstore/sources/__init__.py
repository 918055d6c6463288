"""Where rows come from: images and labels in a fixed order, read one at a time.

The one rule: the order and the number of rows never depend on the machine, and a row that cannot be read raises
ImageError with the status that keeps its place. Start with `open_source`; `base.LabelledSource` is what every
source shares, `decode` turns bytes into RGB, `longtail` holds the subset rules.
"""

from ltstore.sources.annotations import AnnotationSource
from ltstore.sources.base import LabelledSource, to_image
from ltstore.sources.cifar import CifarSource
from ltstore.sources.decode import decode_image, read_file
from ltstore.sources.digits import DigitsSource
from ltstore.sources.files import FileSource
from ltstore.sources.folder import FolderSource
from ltstore.sources.images import ImagesSource
from ltstore.sources.listing import ListSource, read_class_names
from ltstore.sources.longtail import exp_cut, step_cut, stratified_holdout
from ltstore.sources.manifest import ManifestSource
from ltstore.sources.opening import open_source
from ltstore.sources.parquet import ParquetSource
from ltstore.sources.paths import iter_paths
from ltstore.sources.presence import check_present, none_there
from ltstore.sources.published import PUBLISHED, PublishedSet, published_set
from ltstore.sources.record import moved_record, open_recorded, source_record
from ltstore.sources.shuffled import ORDERS, ShuffledSource, ordered
from ltstore.sources.tars import TarSource
from ltstore.sources.views import RelabelledSource, SelectedSource, read_indices, relabelled

__all__ = [
    "ORDERS",
    "PUBLISHED",
    "AnnotationSource",
    "CifarSource",
    "DigitsSource",
    "FileSource",
    "FolderSource",
    "ImagesSource",
    "LabelledSource",
    "ListSource",
    "ManifestSource",
    "ParquetSource",
    "PublishedSet",
    "RelabelledSource",
    "SelectedSource",
    "ShuffledSource",
    "TarSource",
    "check_present",
    "decode_image",
    "exp_cut",
    "iter_paths",
    "moved_record",
    "none_there",
    "open_recorded",
    "open_source",
    "ordered",
    "published_set",
    "read_class_names",
    "read_file",
    "read_indices",
    "relabelled",
    "source_record",
    "step_cut",
    "stratified_holdout",
    "to_image",
]
