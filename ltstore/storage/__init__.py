"""Where bytes lie: files of this machine, or objects behind a URL, by one set of operations.

Its one rule: what is written is there whole or not at all, and what was once acknowledged stays. It knows nothing
of stores, rows or formats, and is the only room that imports obstore and fsspec.

Start reading at `location`; then `files` (with `lock`) and `objects` (with `lease`), which reach their service
through `obstore_client` or `fsspec_client`.
"""

from ltstore.storage.files import FileLocation, open_regular, read_regular
from ltstore.storage.location import (
    Location,
    Place,
    WriterLock,
    is_url,
    open_location,
    parallel_map,
    write_json,
)
from ltstore.storage.objects import ObjectLocation

__all__ = [
    "FileLocation",
    "Location",
    "ObjectLocation",
    "Place",
    "WriterLock",
    "is_url",
    "open_location",
    "open_regular",
    "parallel_map",
    "read_regular",
    "write_json",
]
