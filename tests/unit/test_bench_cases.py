"""Every case runs at toy size, and refuses a candidate that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.case import GROUPS, Case, all_cases, select_cases
from bench.run import run_case
from bench.timing import WrongResultError, measure

CASES = all_cases()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Toy products are slower on several threads than on one, and far slower on a busy machine."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_runs_at_toy_size(case: Case) -> None:
    if case.name == "cli.help":
        pytest.skip("starts whole processes; the command line's own tests do that")
    records = list(run_case(case, "toy"))
    assert records
    for record in records:
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert record["case"] == case.name
        assert "refused" not in record, record["refused"]
        if "skipped" in record:
            assert any(word in record["skipped"] for word in ("install", "yet", "left out"))
            continue
        assert record["seconds"]["p20"] <= record["seconds"]["p50"] <= record["seconds"]["p80"]
        assert record["rounds"] >= (2 if record["kind"] in ("memory", "estimate") else 5)
        assert (record["ratio"] is None) == (record["candidate"] == record["subject"])
        assert record["machine"]["cores"] >= 1
        assert record["versions"]["numpy"] == np.__version__


def _spoiled(value: Any) -> Any:
    """The same kind of answer, and wrong."""
    if isinstance(value, np.ndarray):
        return np.full_like(value, 77)
    if isinstance(value, tuple):
        return tuple(map(_spoiled, value))
    if isinstance(value, list):
        return [_spoiled(each) for each in value]
    if isinstance(value, str):
        return "Usage: nothing"
    if hasattr(value, "loss"):
        return replace(value, loss=value.loss + 1.0)
    if hasattr(value, "n_failed"):
        return replace(value, n_failed=value.n_failed + 1)
    if hasattr(value, "parent_ids"):
        return replace(value, X=value.X + 1)
    return value * 0 + 77  # a tensor


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_refuses_a_wrong_subject(case: Case) -> None:
    workloads = case.build("toy")
    workload = next(workloads)
    subject = workload.candidates[0]
    wrong = replace(subject, run=lambda: _spoiled(subject.run()))
    with pytest.raises(WrongResultError):
        measure(replace(workload, candidates=(wrong, *workload.candidates[1:])))
    workloads.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_refuses_other_wrong_candidates(case: Case) -> None:
    workloads = case.build("toy")
    workload = next(workloads)
    first, *others = workload.candidates
    spoiled = [replace(each, run=lambda each=each: _spoiled(each.run())) for each in others]
    found = measure(replace(workload, candidates=(first, *spoiled)))
    not_refused = [each.candidate for each in found[1:] if not each.refused]
    # Decoding alone gives no 224 x 224 pixels to compare; only the shape of its answer is looked at.
    assert not_refused == (["Pillow, full decode"] if case.name == "ingest.decode" else [])
    workloads.close()  # type: ignore[attr-defined]


def test_cases_are_named_by_group() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    # CPU seconds leave out other processes and add up threads: neither may be where they are used.
    assert all(case.cores == 1 for case in CASES if case.clock == "cpu")
    assert {case.name for case in CASES if case.clock == "wall"} >= {"cli.help", "ingest.pipeline"}
    assert {case.group for case in CASES} == set(GROUPS)
    assert {case.group for case in select_cases(["read"])} == {"read"}
    assert [case.name for case in select_cases(["train.pass"])] == ["train.pass"]
    with pytest.raises(KeyError, match="no case or group 'raed'; groups: read, import, ingest"):
        select_cases(["raed"])


def test_against_keeps_the_peers_named() -> None:
    (case,) = select_cases(["read.whole"])
    names = {r["candidate"] for r in run_case(case, "toy", ["zarr"]) if "skipped" not in r}
    assert names == {"ltstore mapped read", "memcpy (np.copy)", "zarr"}


def test_a_missing_peer_is_named_as_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.stores.missing", lambda peer: f"{peer} is not installed: pip install it")
    (case,) = select_cases(["read.random"])
    records = list(run_case(case, "toy"))
    assert {r["candidate"]: r["skipped"] for r in records if "skipped" in r} == {
        peer: f"{peer} is not installed: pip install it" for peer in ("lance", "tensorstore", "zarr")
    }
