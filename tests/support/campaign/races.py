"""Two commands at once on one store, or to one directory: each ends or is refused, the result that of one order."""

from __future__ import annotations

import time
from typing import Any

from support.campaign.trial import Round, differences
from support.campaign.workshop import COMMANDS, LT, Command, files_of

OTHERS = (
    Command(
        name="ingest test", words=("ingest", "digits", "new.zarr", "--split", "test"), writes=("new.zarr",)
    ),
    Command(name="verify", words=("verify", "digits.zarr")),
    Command(name="another train", words=(*f"train {LT} --loss ce --out new".split(),)),
    Command(name="train made", words=("train", "made.zarr", "--head", "ncm", "--out", "new")),
    Command(name="index made", words=("index", "made.zarr")),
    Command(name="another sample", words=(*f"sample {LT} --name other --per-class 30 --seed 1".split(),)),
)
BY_NAME = {command.name: command for command in (*COMMANDS, *OTHERS)}
PAIRS = (
    ("ingest", "ingest"),
    ("ingest", "ingest test"),
    ("import", "import"),
    ("append", "append"),
    ("append", "train made"),
    ("append", "index made"),
    ("index", "index"),
    ("index", "graph"),
    ("index", "verify"),
    ("graph", "graph"),
    ("train", "train"),
    ("train", "another train"),
    ("checkpoints", "checkpoints"),
    ("grid", "grid"),
    ("sample", "sample"),
    ("sample", "another sample"),
    ("sample", "verify"),
    ("subset", "subset"),
    ("subset", "sample"),
    ("backtest", "backtest"),
    ("repair", "repair"),
    ("repair", "verify"),
    ("repair", "train"),
    ("export npz", "export npz"),
    ("export parts", "export parts"),
    ("text", "text"),
    ("synthetic", "index"),
    ("sample", "train"),
)


def run(round_: Round) -> None:
    """Start two commands, one a moment after the other."""
    rng, shop = round_.rng, round_.shop
    pair = [BY_NAME[name] for name in rng.choice([pair for pair in PAIRS if "text" not in pair or shop.text])]
    rng.shuffle(pair)
    both = Command(
        name="", words=(), writes=pair[0].writes + pair[1].writes, prepare=pair[0].prepare or pair[1].prepare
    )
    orders = [_in_order(round_, both, *order) for order in (pair, pair[::-1])]
    shop.renew(both)
    delay = rng.choice([0.0, rng.uniform(0, 0.3), rng.uniform(0, 2)])
    with round_.of(f"{pair[0].name} and {delay:.3f} s later {pair[1].name}"):
        first = round_.start(pair[0].words, name="-1")
        time.sleep(delay)
        second = round_.start(pair[1].words, name="-2")
        results = [first.wait(), second.wait()]
        for command, result in zip(pair, results, strict=True):
            if "verify" in command.words and both.prepare is not None and result.code == 1:
                assert "internal error" not in result.err, result
                assert "Traceback" not in result.err, result
                continue
            round_.count(result)
        for command, result in zip(pair, results, strict=True):
            if result.code != 0:
                again = round_.call(*command.words)
                assert again.code == 0 or again.refused, f"it does not go on: {again}"
        found = files_of(shop.directory)
        wrong = min((differences(found, expected) for expected in orders), key=len)
        assert not wrong, f"the result of neither order: {wrong[:8]}; {results[0]}; {results[1]}"
        round_.counts["resumed to the same"] += 1


def _in_order(round_: Round, both: Command, *pair: Command) -> dict[str, Any]:
    def run_both() -> dict[str, Any]:
        round_.shop.renew(both)
        for command in pair:
            result = round_.call(*command.words)
            assert result.code == 0 or result.refused or command.name == "verify", result
        return files_of(round_.shop.directory)

    return round_.shop.once(("order", *(command.name for command in pair)), run_both)
