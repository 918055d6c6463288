"""Making a damaged store whole. Nothing that is damaged is thrown away, and what is whole stays as it is.

Start reading at `store_repair`; `split_repair` has the steps of one split, `subset_repair` those of its subsets,
`restoring` what the store knows twice, `bitflip` single bits, and `maker` whoever makes rows again.
"""

from ltstore.store.repairing.maker import Maker
from ltstore.store.repairing.store_repair import repair

__all__ = ["Maker", "repair"]
