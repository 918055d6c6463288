"""Class moments: what every sampler and closed-form head needs of the rows, in one streaming computation.

The one rule: sums only. Whatever is accumulated over rows can be added up over shards and machines, so the
result depends on neither block size nor number of workers beyond rounding. Start reading at `moments`.
"""

from ltstore.stats.artefact import load_moments, save_moments
from ltstore.stats.moments import ClassMoments, MomentSums, class_moments, merge_moments

__all__ = ["ClassMoments", "MomentSums", "class_moments", "load_moments", "merge_moments", "save_moments"]
