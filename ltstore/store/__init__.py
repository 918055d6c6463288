"""The store on disk: embeddings with their labels, status and keys, written once and read for ever.

Its one rule: what is there is whole. A shard appears with its commit record or not at all, a row that has no
embedding keeps its place and says why, and nothing is overwritten. It is the only room that imports zarr,
and only where arrays are created or laid out by someone else. docs/format.md specifies every byte.

Start reading at `store` (create, open), then `writer` and `view`; `format`, `plan` and `shard` are pure. `check` looks
for damage; `repairing` mends it.
"""

from ltstore.store.check import verify
from ltstore.store.findings import Problem, Repair, VerifyReport
from ltstore.store.format import FORMAT_VERSION
from ltstore.store.info import store_info
from ltstore.store.plan import ShardPlan, plan_shards
from ltstore.store.repairing import Maker, repair
from ltstore.store.shard_writer import ShardWriter
from ltstore.store.split import Split
from ltstore.store.store import Store, create_store, is_store, open_or_create_store, open_store
from ltstore.store.view import RowView
from ltstore.store.writer import SplitWriter

__all__ = [
    "FORMAT_VERSION",
    "Maker",
    "Problem",
    "Repair",
    "RowView",
    "ShardPlan",
    "ShardWriter",
    "Split",
    "SplitWriter",
    "Store",
    "VerifyReport",
    "create_store",
    "is_store",
    "open_or_create_store",
    "open_store",
    "plan_shards",
    "repair",
    "store_info",
    "verify",
]
