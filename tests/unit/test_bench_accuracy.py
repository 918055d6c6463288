"""The accuracy table: its problems are what they say, its records can be compared, its page says what they hold."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.__main__ import main
from bench.accuracy import defaults, rules
from bench.accuracy.command import METHODS, PAGE, RESULTS, accuracy_page, with_tables
from bench.accuracy.heads import BASELINES, HEADS, heads_of
from bench.accuracy.page import page
from bench.accuracy.problems import PROBLEMS, problem
from bench.accuracy.run import MEASURES, correct, gains, read_records


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every head on the toy form of the one problem that needs no data."""
    out = tmp_path_factory.mktemp("accuracy") / "results" / "toy.jsonl"
    assert main(["accuracy", "--problems", "digits", "--seeds", "1", "--size", "toy", "--out", str(out)]) == 0
    return out


def test_every_head_has_a_record_that_can_be_judged_again(toy_run: Path) -> None:
    records = {record["head"]: record for record in read_records([toy_run]).values()}
    posed = problem("digits", None, 1, "toy")
    assert tuple(records) == heads_of(posed)
    assert set(records) == set(HEADS) - {"text", "zero-shot"}
    for head, record in records.items():
        right = correct(record)
        assert right.mean() == pytest.approx(record["overall"]["value"])
        assert record["overall"]["low"] <= record["overall"]["value"] <= record["overall"]["high"]
        counts = np.array(record["class_counts"])
        by_class = np.array([each.mean() for each in np.split(right, np.cumsum(record["test_counts"])[:-1])])
        assert by_class.mean() == pytest.approx(record["balanced"]["value"])
        assert by_class[counts < 20].mean() == pytest.approx(record["few"]["value"])
        assert (record["over_la"] is None) == (head == "la")
        assert record["seconds"]["total"] >= record["seconds"]["train"] > 0
        assert record["machine"]["cores"] >= 1
    for head in ("auto", "la, lean by backtest"):
        assert records[head]["budget"]["trials"] >= 2
        assert records[head]["seconds"]["total"] > records[head]["seconds"]["backtest"] > 0
        assert "choice" in records[head]["card"]
    assert records["auto"]["settings"]["auto_name"] == records["auto"]["card"]["choice"]


def test_gains_are_differences_of_the_measures(toy_run: Path) -> None:
    records = {record["head"]: record for record in read_records([toy_run]).values()}
    for head in ("ce", "neighbor-gauss", "auto"):
        found = gains([records[head]], [records["la"]])
        assert found == records[head]["over_la"]
        for name in MEASURES:
            one, other, gain = records[head][name], records["la"][name], found[name]
            assert gain is not None
            assert gain["value"] == pytest.approx(one["value"] - other["value"])
            assert gain["low"] <= gain["value"] <= gain["high"]
    assert gains([records["la"]] * 2, [records["la"]] * 2)["few"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    other = records["la"] | {"test_counts": [1]}
    with pytest.raises(ValueError, match="other test rows"):
        gains([records["la"]], [other])


def test_a_rerun_makes_only_what_is_missing(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["accuracy", "--problems", "digits", "--seeds", "1", "--size", "toy"]
    capsys.readouterr()
    assert main([*words, "--out", str(toy_run)]) == 0
    assert capsys.readouterr().out == ""
    some = tmp_path / "some.jsonl"
    lines = toy_run.read_text().splitlines()
    some.write_text("\n".join(line for line in lines if json.loads(line)["head"] != "gda") + "\n")
    assert main([*words, "--out", str(some)]) == 0
    assert capsys.readouterr().out.startswith("digits seed 1: gda: ")
    again = {record["head"]: record for record in read_records([some]).values()}
    for name, record in ((each["head"], each) for each in map(json.loads, lines)):
        assert again[name]["correct"] == record["correct"]
        assert again[name]["over_la"] == record["over_la"]
    assert main([*words, "--out", str(some), "--heads", "ce; ncm", "--force"]) == 0
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["la", "ce", "ncm"]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--problems", "digit"), "no problem 'digit'; known: digits"),
        (("--problems", "dtd-lt"), "needs the folder with the data"),
        (("--problems", "digits", "--heads", "la; forest"), "no head 'forest'"),
        (("--data", "nowhere"), "nowhere is no folder"),
    ],
)
def test_what_cannot_be_run(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["accuracy", *words, "--out", str(tmp_path / "x.jsonl")]) == 1
    assert message in capsys.readouterr().err


def test_foreign_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"case": "read.whole"}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:1 is not a record of the accuracy table"):
        read_records([tmp_path / "x.jsonl"])


def test_digits_are_cut_in_another_order_by_another_seed() -> None:
    first, second = problem("digits", None, 0), problem("digits", None, 1)
    assert first.counts.tolist() == sorted(first.counts.tolist(), reverse=True)
    assert sorted(second.counts) == sorted(first.counts)
    assert second.counts.tolist() != first.counts.tolist()
    assert (first.counts.max(), first.counts.min()) == (125, 2)
    np.testing.assert_array_equal(first.test.X, second.test.X)


@pytest.mark.parametrize(
    "name, seed, n_train, n_test, largest, smallest",
    [
        ("cifar100-lt-if100", 0, 10847, 10000, 500, 5),
        ("cifar100-lt-if100", 2, 10847, 10000, 500, 5),
        ("cifar100-lt-if50", 1, 12608, 10000, 500, 10),
        ("cifar100-lt-if10", 0, 19573, 10000, 500, 50),
        ("caltech101", 0, 1649, 2465, 160, 6),
        ("dtd-lt", 0, 399, 1692, 24, 2),
        ("imagenet-fewshot", 0, 4000, 2997, 4, 4),
    ],
)
def test_problems_are_of_the_size_they_say(
    real_data: Path, name: str, seed: int, n_train: int, n_test: int, largest: int, smallest: int
) -> None:
    posed = problem(name, real_data, seed)
    assert len(posed.train.y) == n_train == posed.counts.sum()
    assert len(posed.test.y) == n_test
    assert (np.diff(posed.test.y) >= 0).all()
    assert (posed.counts.max(), posed.counts.min()) == (largest, smallest)
    if name == "imagenet-fewshot":  # CIFAR-100 and DTD have a few images twice, as published
        rows = [row.tobytes() for row in (*posed.train.X, *posed.test.X)]
        assert len(set(rows)) == len(rows)
    toy = posed.shrunk()
    assert toy.n_classes == 12
    assert toy.train.X.shape[1] <= 32
    if posed.vectors is not None:
        assert toy.vectors is not None
        assert toy.vectors.shape == (12, toy.train.X.shape[1])


def test_a_cut_that_cannot_be_drawn_is_refused(real_data: Path) -> None:
    with pytest.raises(ValueError, match="no other seed than 0"):
        problem("cifar100-lt-if10", real_data, 1)
    assert PROBLEMS["cifar100-lt-if10"].seeds == (0,)


def test_balanced_rows_get_synthetic_ones_and_text(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy.jsonl"
    words = ["accuracy", "--problems", "imagenet-fewshot", "--size", "toy", "--data", str(real_data)]
    assert main([*words, "--heads", "auto; text; zero-shot; neighbor-gauss", "--out", str(out)]) == 0
    records: dict[str, Any] = {each["head"]: each for each in read_records([out]).values()}
    assert set(records) == {"la", "auto", "text", "zero-shot", "neighbor-gauss"}
    assert records["auto"]["card"] is None
    assert "no backtest was possible" in records["auto"]["settings"]["auto_reason"]
    assert records["auto"]["correct"] == records["la"]["correct"]
    assert records["text"]["settings"]["n_synthetic"] == 16 * 12
    assert set(BASELINES) <= set(HEADS)


@pytest.fixture(scope="module")
def toy_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("defaults") / "toy.jsonl"
    words = [
        "defaults",
        "--problems",
        "digits",
        "--samplers",
        "neighbor-gauss,kde",
        "--size",
        "toy",
        "--trials",
        "2",
    ]
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_settings_are_compared_with_their_default(toy_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = defaults.read_records([toy_study])
    assert {defaults.key(record) for record in records} == {
        ("digits", seed, "toy", sampler) for seed in (0, 1, 2) for sampler in ("neighbor-gauss", "kde")
    }
    for record in records:
        assert record["gain_low"] <= record["gain"] <= record["gain_high"]
        assert (record["gain"] == 0) or record["setting"] != "default"
    pulls = {
        r["setting"]: r["settings"]["pull_rows"]
        for r in records
        if "estimate" in r["setting"] and not r["seed"]
    }
    assert pulls["pull_rows 4 x estimate"] == pytest.approx(8 * pulls["pull_rows 0.5 x estimate"])
    words = ["defaults", "--problems", "digits", "--samplers", "kde", "--size", "toy", "--out", str(toy_study)]
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out == ""


def test_tables_say_means_and_what_is_beyond_noise(tmp_path: Path) -> None:
    common = {"sampler": "kde", "size": "full", "seed": 0, "n_trials": 8, "date": "2026-01-01"}
    default = {"setting": "default", "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "head": 0.9, "tail": 0.456}
    wide = default | {"setting": "nu 5", "gain": 0.02, "gain_low": -0.02, "gain_high": 0.06}
    sure = wide | {"gain": 0.04, "gain_low": 0.01, "gain_high": 0.07}
    records = [common | {"problem": "digits"} | each for each in (default, wide)]
    records += [common | {"problem": "caltech101"} | each for each in (default, sure)]
    text = defaults.tables([*records, records[0] | {"size": "toy"}])
    assert "| setting | digits | caltech101 | mean |" in text
    assert "| default: kept / cut classes | 90.0 / 45.6 | 90.0 / 45.6 | |" in text
    assert "| nu 5 | +2.0 ± 4.0 | **+4.0 ± 3.0** | **+3.0 ± 2.5** |" in text
    place, results = tmp_path / "page.md", tmp_path / "results" / "defaults" / "r.jsonl"
    results.parent.mkdir(parents=True)
    results.write_text("".join(json.dumps(record) + "\n" for record in records))
    words = ["methods-page", "--results", str(tmp_path / "results"), "--out", str(place)]
    marks = [f"<!-- {name}: written by `python -m bench methods-page` -->\n" for name in ("defaults", "rules")]
    place.write_text(f"before\n{marks[0]}old\n<!-- defaults: end -->\nafter\n{marks[1]}<!-- rules: end -->\n")
    for _ in range(2):
        assert main(words) == 0
        assert place.read_text().startswith(
            f"before\n{marks[0]}\n{text}\n<!-- defaults: end -->\nafter\n{marks[1]}"
        )
    place.write_text("no marks\n")
    assert main(words) == 1
    assert place.read_text() == "no marks\n"


def test_rules_are_judged_by_backtests_they_did_not_see(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rules.jsonl"
    words = ["rules", "--problems", "digits", "--size", "toy", "--cards", "2", "--out", str(out)]
    assert main(words) == 0
    records = rules.read_records([out])
    assert {(each["rule"], each["seed"]) for each in records} == {
        (r, s) for r in rules.RULES for s in (0, 1, 2)
    }
    for each in records:
        assert each["worst"] <= each["gain"]
        assert len(each["chosen"]) == 2
    text = rules.table([each | {"size": "full"} for each in records])
    mean = 100 * np.mean([each["gain"] for each in records if each["rule"] == "best score"])
    assert f"| best score | {mean:+.1f} / " in text
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out == ""
    assert main([*words, "--cards", "1", "--force"]) == 1
    assert "make 2 or more, found 1" in capsys.readouterr().err
    assert main(["rules", "--problems", "dtd", "--out", str(out)]) == 1
    assert "no problem 'dtd' for rules" in capsys.readouterr().err


def test_studies_that_cannot_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["defaults", "--out", str(tmp_path / "x.jsonl"), "--problems"]
    assert main([*words, "imagenet-fewshot"]) == 1
    assert "no problem 'imagenet-fewshot' for defaults; known: digits" in capsys.readouterr().err
    assert main([*words, "digits", "--samplers", "smote"]) == 1
    assert "no study of 'smote'" in capsys.readouterr().err


def made(
    head: str, right: list[int], problem: str = "caltech101", seed: int = 0, **changes: Any
) -> dict[str, Any]:
    """A record of four test rows: two classes of 50 and of 5 training rows."""
    bits = np.packbits(np.array(right, bool)).tobytes()
    by_class = np.mean(right[:2]), np.mean(right[2:])

    def estimate(value: float) -> dict[str, float]:
        return {"value": float(value), "low": float(value) - 0.1, "high": float(value) + 0.1}

    return {
        "problem": problem,
        "seed": seed,
        "size": "full",
        "head": head,
        "encoder": "an encoder",
        "rule": "some rows",
        "ceiling": None,
        "n_train": 55,
        "settings": {"auto_name": "la", "auto_reason": "no backtest was possible (no tail)"},
        "overall": estimate(float(np.mean(right))),
        "balanced": estimate(float(np.mean(by_class))),
        "many": None,
        "medium": estimate(by_class[0]),
        "few": estimate(by_class[1]),
        "worst": {"accuracy": float(min(by_class))},
        "ece": 0.05,
        "seconds": {"total": 2.0, "train": 1.0},
        "budget": {},
        "card": None,
        "class_counts": [50, 5],
        "test_counts": [2, 2],
        "correct": base64.b64encode(bits).decode(),
        "machine": {"cpu": "a", "cores": 2},
        "load": 1.5,
        "versions": {"python": "3.11"},
        "commit": "0123",
        "date": "2026-01-01",
        **changes,
    }


def test_the_page_says_what_records_hold() -> None:
    card = {"choice": "both", "reason": "", "gain": 0.01, "gain_low": -0.01, "gain_high": 0.03}
    told = {
        "card": card,
        "budget": {"trials": 4, "candidates": 9},
        "seconds": {"total": 30.0, "backtest": 20.0},
    }
    records = [
        made("la", [1, 1, 0, 0]),
        made("la", [1, 1, 1, 0], seed=1),
        made("ce", [1, 1, 0, 0]),
        made("ce", [1, 0, 0, 0], seed=1),
        made("ce, all rows", [1, 1, 1, 1]),
        made("ce, all rows", [1, 1, 1, 1], seed=1),
        made("la", [0, 0, 0, 0], seed=2),
        made("auto", [1, 1, 1, 1], **told),
        made("auto", [1, 1, 1, 1], seed=1),
        made("gda", [0, 0, 0, 0], size="toy"),
    ]
    text = page(records)
    assert "| la | 62.5 ± 10.0 (17.7) | 62.5 | n/a | 100.0 | 25.0 |  |  | 25.0 | 5.0 |" in text
    assert "| ce, all rows | 100.0 ± 10.0 (0.0) |" in text
    auto = next(line for line in text.splitlines() if line.startswith("| auto |"))
    assert auto.endswith("| 100.0 | 5.0 | 100 | 16 |")
    assert "- seed 0: both; foreseen over la +1.0 [-1.0, +3.0]; 9 candidates, 4 trials, 20 s of 30 s" in text
    assert "- seed 1: la; no backtest was possible (no tail)" in text
    assert "gda" not in text.split("## caltech101")[1]
    assert "Not measured yet, or not with every head: digits; caltech101 seed 2; dtd-lt; " in text
    assert "2026-01-01: a, 2 cores; python 3.11; load 1.5 to 1.5; commits `0123`" in text
    summary = next(line for line in text.splitlines() if line.startswith("| caltech101 | 2 | 100.0 / 100.0 | "))
    assert "+37.5 [" in summary
    assert "| la | " in summary


def test_the_page_says_plainly_where_an_aim_is_missed() -> None:
    good, bad = [1] * 2 + [0] * 2, [1, 0, 0, 0]
    many_rows = {"test_counts": [100, 100]}

    def repeated(head: str, right: list[int]) -> dict[str, Any]:
        return made(head, list(np.repeat(right, 50))) | many_rows

    text = page([repeated("la", good), repeated("auto", bad)])
    assert "never below `la` by more than noise: **missed** on caltech101 (**-25.0 [" in text
    assert "at equal overall: **missed**: **-25.0 [" in text
    assert "below that head beyond noise on caltech101" in text
    text = page([repeated("la", good), repeated("auto", [1, 1, 1, 0])])
    assert "met on all 1 problems" in text
    assert "at equal overall: met: **+25.0 [" in text
    assert "beyond noise on" not in text
    assert "with a backtest" not in text
    card = {"choice": "both", "reason": "", "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0}
    told = {"card": card, "budget": {"trials": 4, "candidates": 9}, "seconds": {"total": 3.0, "backtest": 2.0}}
    dtd = [repeated(head, good) | {"problem": "dtd-lt"} for head in ("la", "auto")]
    text = page([*dtd, repeated("la", good), repeated("auto", [1, 1, 1, 0]) | told])
    assert "| **mean** | | | **+12.5 [" in text
    assert "| **mean with a backtest** | | | **+25.0 [" in text


def test_the_committed_pages_are_made_of_the_committed_results() -> None:
    for name in ("accuracy", "defaults", "rules"):
        assert any(RESULTS.glob(f"{name}/*.jsonl"))
    assert PAGE.read_text(encoding="utf-8") == accuracy_page(RESULTS), "run python -m bench accuracy-page"
    text = METHODS.read_text(encoding="utf-8")
    assert text == with_tables(text, RESULTS), "run python -m bench methods-page"
