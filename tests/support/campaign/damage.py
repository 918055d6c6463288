"""Damaged artefacts of every kind, and every command that reads them: refused by name, healed, or as it was."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.campaign.process import KILLED
from support.campaign.trial import Round
from support.campaign.workshop import LT, VOLATILE

TIMES = VOLATILE | {"share_of_peak", "peak", "data_share", "n_bytes"}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "digits.zarr": (
        "info digits.zarr --json",
        "verify digits.zarr --json",
        f"query {LT} --row 3 -k 4 --json",
        "query digits.zarr --row 3 -k 4 --json",
        f"donors {LT} --by index --json",
        f"train {LT} --head gda --out asked --json",
        f"train {LT} --synthetic ng --max-passes 4 --out asked --json",
        "train digits.zarr --subset val-rest --holdout val --max-passes 4 --out asked --json",
        f"sample {LT} --name asked --per-class 5 --json",
        "export digits.zarr asked.npz --format npz --subset lt --json",
        f"backtest {LT} --samplers neighbor-gauss,duplicate --trials 2 --rows-per-class 20 --json",
        "index digits.zarr --json",
        "index digits.zarr --graph 5 --json",
        "evaluate models/la --store digits.zarr --json",
        "evaluate models/la --store digits.zarr --report asked.html --json",
    ),
    "models": (
        "evaluate models/la models/grid --store digits.zarr --json",
        "predict models/la digits --json",
        "predict models/grid digits --csv",
    ),
    "photos.zarr/stats": (
        "train photos.zarr --head zero-shot --out asked --json",
        "train photos.zarr --sampler text --max-passes 3 --out asked --json",
        "text photos.zarr --device cpu --json",
    ),
    "run": (
        f"train {LT} --holdout 0.2 --keep best --checkpoint run --checkpoint-every 1 "
        "--max-passes 12 --out asked --json",
    ),
}  # fmt: skip
WEIGHTS = {"digits.zarr": 6, "models": 3, "photos.zarr/stats": 0.5, "run": 3}


def run(round_: Round) -> None:
    """Damage one or two files of an artefact, and ask."""
    shop, rng = round_.shop, round_.rng
    shop.renew()
    places = [place for place in QUESTIONS if "photos" not in place or shop.text]
    place = rng.choices(places, [WEIGHTS[name] for name in places])[0]
    question = rng.choice(QUESTIONS[place])
    expected = _answer_of(round_, question)
    if place == "run":
        _stop_in_training(round_)
    files = [file for file in sorted((shop.directory / place).rglob("*")) if file.is_file()]
    weights = [0.3 if "synthetic" in file.parts or "test" in file.parts else 1.0 for file in files]
    file = rng.choices(files, weights)[0]
    change = rng.choice(list(CHANGES))
    label = f"{change} {file.relative_to(shop.directory)}, then {question}"
    with round_.of(label):
        changed = CHANGES[change](file, files, rng)
        result = round_.call(*question.split())
        if result.code == 0:
            answer = _normal(result.out)
            if (
                question.startswith("info")
                and answer != expected
                and _names(changed, shop.directory, result.out)
            ):
                round_.counts["refused clearly"] += 1  # `info` says what is damaged and goes on
                return
            assert answer == expected, f"a wrong answer: {_difference(answer, expected)}; {result}"
            round_.counts["finished all the same"] += 1
            return
        if question.startswith("verify"):
            assert result.code == 1, result
            assert "internal error" not in result.err, result
            assert "Traceback" not in result.err, result
            assert _names(changed, shop.directory, result.err + result.out), (
                f"does not name the file: {result}{result.out}"
            )
        else:
            assert result.refused, f"not one clear line: {result}"
            assert _names(changed, shop.directory, result.err), f"does not name the file: {result}"
        round_.counts["refused clearly"] += 1
        if place == "digits.zarr":
            _heal(round_, question, expected)


def _heal(round_: Round, question: str, expected: Any) -> None:
    """`verify --repair` makes the store whole; what was refused is answered, unless rows were lost for good."""
    repaired = round_.call("verify", "digits.zarr", "--repair", "--json")
    if repaired.code != 0:
        assert repaired.refused or "problems" in repaired.out, f"neither healed nor refused: {repaired}"
        round_.counts["not healed, and said so"] += 1
        return
    again = round_.call(*question.split())
    if again.code == 0 and _normal(again.out) == expected:
        round_.counts["healed"] += 1
    else:
        assert again.code == 0 or again.refused, f"after a repair: {again}"
        round_.counts["healed but for what cannot be made again"] += 1


def _stop_in_training(round_: Round) -> None:
    """Leave a checkpoint of a training that was stopped."""
    from ltstore.linear.checkpoint import Checkpoint

    save, saved = Checkpoint.save, []

    def save_and_die(self: Checkpoint, states: Any) -> None:
        save(self, states)
        saved.append(self.passes)
        if len(saved) == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    def disturb() -> None:
        Checkpoint.save = save_and_die  # type: ignore[method-assign]

    result = round_.start(QUESTIONS["run"][0].split(), disturb).wait()
    assert result.code == KILLED, result


def _answer_of(round_: Round, question: str) -> Any:
    def ask() -> Any:
        result = round_.call(*question.split())
        assert result.code == 0, result
        round_.shop.renew()
        return _normal(result.out)

    return round_.shop.once(("answer", question), ask)


def _normal(out: str) -> Any:
    try:
        return _timeless(json.loads(out))
    except ValueError:
        return [_timeless(json.loads(line)) if line.startswith("{") else line for line in out.splitlines()]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES and "second" not in key}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    return value


def _difference(found: Any, expected: Any, where: str = "") -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted(found.keys() | expected.keys())
        parts = [_difference(found.get(key), expected.get(key), f"{where}.{key}") for key in keys]
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        parts = [
            _difference(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(found, expected, strict=True))
        ]
    else:
        return "" if found == expected else f"{where}: {str(found)[:200]} for {str(expected)[:200]}"
    return "; ".join(filter(None, parts))[:600]


def _names(changed: list[Path], directory: Path, text: str) -> bool:
    """Whether a message names a changed file, or the artefact that it is part of, more closely than by the store."""
    for file in changed:
        relative = file.relative_to(directory)
        if file.name in text or any(str(part) in text for part in [relative, *list(relative.parents)[:-2]]):
            return True
    return False


Change = Callable[[Path, list[Path], random.Random], list[Path]]
"""What is done to a file, one of those of its artefact; returns the files that were changed."""


def _flip(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice([1, 1, 8])):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return [file]


def _truncate(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(max(len(data), 1))])
    return [file]


def _grow(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.randint(1, 40)))
    return [file]


def _empty(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    file.write_bytes(b"")
    return [file]


def _zero(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    data = bytearray(file.read_bytes())
    start = rng.randrange(max(len(data), 1))
    stop = min(start + 512, len(data))
    data[start:stop] = bytes(stop - start)
    file.write_bytes(data)
    return [file]


def _swap(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    alike = [other for other in files if other.suffix == file.suffix and other != file] or files
    other = rng.choice(alike)
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)
    return [file, other]


def _remove(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    file.unlink()
    return [file]


def _directory(file: Path, files: list[Path], rng: random.Random) -> list[Path]:
    file.unlink()
    file.mkdir()
    return [file]


CHANGES: dict[str, Change] = {
    "flip bits of": _flip,
    "truncate": _truncate,
    "append to": _grow,
    "empty": _empty,
    "zero a block of": _zero,
    "swap another with": _swap,
    "remove": _remove,
    "put a directory in place of": _directory,
}
