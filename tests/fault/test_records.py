"""Records beside a store: a number that has changed on disk is seen, whatever it has become."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ltstore.errors import StoreFormatError
from ltstore.provenance import seal_holds, sealed
from ltstore.rows import ArrayRows
from ltstore.stats import class_moments, load_moments, save_moments
from ltstore.workflow import select
from ltstore.workflow.kept import keep, read_kept
from support.stores import made_store


def test_a_seal_survives_json_and_no_change_survives_it() -> None:
    document = {"é": [1, 2.5, None], "by class": {3: "x", 20: "y"}, "pair": (1, 2), "tiny": 1e-300}
    written = json.loads(json.dumps(sealed(document)))
    assert seal_holds(written)
    assert sealed(written) == written
    assert not seal_holds({**written, "tiny": 1.1e-300})
    assert not seal_holds({**written, "more": 1})
    assert not seal_holds({**written, "tiny": float("nan")})
    assert seal_holds({"written": "before there were seals"})


def test_a_finding_that_has_changed_is_made_anew(tmp_path: Path) -> None:
    made_store(tmp_path / "s")
    selection, path = select(tmp_path / "s", "train"), tmp_path / "card.json"

    def kept() -> dict[str, float] | None:
        return read_kept(path, "card", selection, {"trials": 4}, dict)

    keep(path, "card", selection, {"trials": 4}, {"lean": 0.5}, kind="backtest", seed=0)
    assert kept() == {"lean": 0.5}
    path.write_text(path.read_text().replace("0.5", "0.7"))
    assert kept() is None


def test_moments_whose_record_has_changed(tmp_path: Path) -> None:
    rows, path = ArrayRows(np.eye(4, dtype=np.float32), [0, 1, 0, 1]), tmp_path / "moments.safetensors"
    save_moments(class_moments(rows), path, {"made_from": {"rows": rows.digest}, "seed": 1})
    load_moments(path, rows_digest=rows.digest)
    record = path.with_name(f"{path.name}.json")
    record.write_text(record.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(StoreFormatError, match="has changed since it was written: compute the moments again"):
        load_moments(path, rows_digest=rows.digest)
