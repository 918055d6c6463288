"""Comparing two results, the page made of them, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from bench.__main__ import PAGE, RESULTS, main
from bench.case import all_cases
from bench.compare import compare, machines_differ, read_records
from bench.documents import DOCS, pages, scale_table
from bench.page import page
from bench.run import loses, met
from bench.show import number, seconds


def record(ratio: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "case": "read.whole",
        "variant": "float16",
        "size": "full",
        "candidate": "zarr" if ratio else "ltstore mapped read",
        "subject": "ltstore mapped read",
        "kind": "speed",
        "unit": "rows",
        "settings": {"n_samples": 1000, "cores": 1},
        "machine": {"cpu": "a", "cores": 2, "flags": ["avx2"], "memory_bytes": 2**34, "gpu": None},
        "load": 0.5,
        "versions": {"python": "3.11"},
        "commit": "0123",
        "date": "2026-01-01",
        "ratio": ratio and {"p20": ratio * 0.9, "p50": ratio, "p80": ratio * 1.1},
        "aim": 2.0 if ratio else None,
        "stretch": None,
        "seconds": {"p20": 0.1, "p50": 0.2, "p80": 0.3},
        "work": 1000,
        "peak_bytes": 2_000_000,
        "rounds": 5,
        **changes,
    }


def test_compare_says_better_only_beyond_the_spread() -> None:
    (same,) = compare([record(2.0)], [record(2.2)])
    assert same.change == pytest.approx(1.1)
    assert (same.low, same.high) == pytest.approx((0.9 * 2.2 / 2.2, 1.1 * 2.2 / 1.8))
    assert same.better is None
    (better,) = compare([record(2.0)], [record(3.0)])
    assert better.better is True
    (worse,) = compare([record(2.0, kind="cost")], [record(3.0, kind="cost")])
    assert worse.better is False
    assert compare([record(2.0)], [record(2.0, variant="other"), record(None)]) == []


def test_aims_have_a_direction() -> None:
    assert met(record(2.0)) is True
    assert met(record(1.9)) is False
    assert met(record(1.9, kind="cost")) is True
    assert met(record(2.1, kind="cost")) is False
    assert met(record(2.0, aim=None)) is None
    assert loses(record(0.9))
    assert loses(record(1.1, kind="cost"))
    assert not loses(record(None))


def test_records_are_read_and_the_later_one_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(json.dumps(record(2.0)) + "\n" + json.dumps(record(None)) + "\n")
    second.write_text(json.dumps(record(4.0)) + "\n")
    found = read_records([first, second])
    assert [each["ratio"] and each["ratio"]["p50"] for each in found] == [None, 4.0]
    second.write_text('{"case": "x"}\n')
    with pytest.raises(ValueError, match=r"b\.jsonl:1 is not a record"):
        read_records([first, second])


def test_the_page_says_missed_and_names_faster_peers() -> None:
    text = page(all_cases(), [record(None), record(0.5), record(3.0, candidate="tensorstore")])
    assert "| read.whole | float16 | zarr | 0.5 (0.45 to 0.55) | ≥ 2 |  | **missed** |" in text
    assert "| read.whole | float16 | tensorstore | 3 (2.7 to 3.3) | ≥ 2 |  | met |" in text
    assert "- read.whole, float16: zarr, 0.5 (0.45 to 0.55)" in text
    assert "- read.whole, float16: tensorstore" not in text
    assert "Not measured yet." in text
    assert "2026-01-01: a, 2 cores (avx2), 16 GiB, no GPU; python 3.11" in text


def test_the_page_names_what_was_skipped_and_refused() -> None:
    bare = {key: value for key, value in record(1.0).items() if key not in ("ratio", "seconds")}
    text = page(
        all_cases(), [bare | {"skipped": "not installed"}, bare | {"candidate": "x", "refused": "wrong"}]
    )
    assert "| zarr | skipped: not installed |" in text
    assert "| x | refused: wrong |" in text


def test_the_committed_page_is_made_of_the_committed_results() -> None:
    files = sorted(RESULTS.glob("*.jsonl"))
    assert files
    assert PAGE.read_text(encoding="utf-8") == page(all_cases(), read_records(files)), (
        "run python -m bench page"
    )


@pytest.mark.parametrize("name", ["benchmarks.md", "accuracy.md", "methods.md", "scaling.md", "cli.md"])
def test_the_committed_pages_are_what_regenerate_writes(name: str, made_pages: dict[str, str]) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == made_pages[name], "run python -m bench regenerate"


def test_the_plots_show_every_ratio_with_an_aim(made_pages: dict[str, str]) -> None:
    """Not byte for byte: the versions of matplotlib differ."""
    aimed = [each for each in read_records(sorted(RESULTS.glob("*.jsonl"))) if met(each) is not None]
    shown = "".join(fromstring(made_pages["benchmarks.svg"]).itertext())
    for each in aimed:
        assert f"{each['case']}: {each['variant']} / {each['candidate']}" in shown
    assert "said at most, seconds" in "".join(fromstring(made_pages["scaling.svg"]).itertext())
    assert all((DOCS / name).is_file() for name in ("benchmarks.svg", "scaling.svg"))


@pytest.fixture(scope="module")
def made_pages() -> dict[str, str]:
    return {path.name: text for path, text in pages(RESULTS).items()}


def test_an_estimate_is_neither_faster_nor_slower() -> None:
    said = record(1.3, kind="estimate", aim=1.0, said=2.0, candidate="train, at most")
    assert met(said) is False
    assert not loses(said)
    table = scale_table([said])
    assert "| float16 |  | 2.6 s / 2 s |" in table
    assert "a, one core of 2, 2026-01-01" in table


def test_numbers_and_times_read_well() -> None:
    assert [number(value) for value in (0.0123, 1.046, 12.34, 1234.5)] == ["0.0123", "1.05", "12.3", "1,234"]
    assert [seconds(value) for value in (2.0, 0.0214, 3.1e-6, 5e-9)] == ["2 s", "21.4 ms", "3.1 us", "5 ns"]


def test_run_writes_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "new.jsonl"
    assert main(["run", "sample", "--size", "toy", "--here", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert out.read_text().splitlines() == lines
    assert [json.loads(line)["case"] for line in lines] == ["sample.rows"] * 3
    assert main(["compare", str(out), str(out)]) == 0
    changes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [change["change"] for change in changes] == [1.0, 1.0]
    assert not machines_differ(read_records([out]), read_records([out]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "raed"), "no case or group 'raed'"),
        (("run", "read", "--against", "zar"), "unknown peer 'zar' after --against; known: zarr"),
        (("compare", "nowhere.jsonl", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_errors_are_one_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_list_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(case.name in out for case in all_cases())


def test_a_table_for_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["run", "search", "--size", "toy", "--here"]) == 0
    out = capsys.readouterr().out
    assert "search.overhead, flat, 1 query (seconds of FaissIndex.search / candidate)" in out
    assert "bare faiss" in out
