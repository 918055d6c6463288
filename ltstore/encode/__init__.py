"""Images to embeddings: one adapter per encoder family, and the pipeline that keeps it busy.

The one rule: an embedding never travels without its identity, and a row that fails keeps its place. Start with
`open_encoder` and `ingest`; `pipeline` is what both ingest and predict run on. torch, open_clip, timm and
onnxruntime are imported by their own module, when an encoder is opened.
"""

from ltstore.encode.arriving import iter_arriving
from ltstore.encode.encoders import open_encoder
from ltstore.encode.gpu_use import gpu_use
from ltstore.encode.ingest import ingest
from ltstore.encode.ingest_report import IngestReport
from ltstore.encode.pipeline import EncodedBatch, iter_encoded
from ltstore.encode.pixels import NativePixels, PixelEncoder
from ltstore.encode.usage import Usage, usage_of

__all__ = [
    "EncodedBatch",
    "IngestReport",
    "NativePixels",
    "PixelEncoder",
    "Usage",
    "gpu_use",
    "ingest",
    "iter_arriving",
    "iter_encoded",
    "open_encoder",
    "usage_of",
]
