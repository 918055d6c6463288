"""One round: disturb a command, look at what it left, run it again, compare with an undisturbed run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.campaign.process import KILLED, Result, Running, call, start
from support.campaign.workshop import COMMANDS, Command, Whole, Workshop, files_of


@dataclass
class Round:
    """What a round of a kind is given: a seeded source of chance, the workshop, and where to count."""

    seed: int
    kind: str
    number: int
    rng: random.Random
    shop: Workshop
    counts: Counter[str]

    @property
    def prints(self) -> Path:
        """Where commands print."""
        return self.shop.scratch / "round"

    def draw(self) -> Command:
        """Draw a command."""
        choice = [command for command in COMMANDS if command.name != "text" or self.shop.text]
        return self.rng.choices(choice, [command.weight for command in choice])[0]

    def call(self, *words: str) -> Result:
        """Run a command undisturbed."""
        return call(words, self.shop.directory, self.prints)

    def start(
        self, words: Sequence[str], disturb: Callable[[], object] = lambda: None, name: str = ""
    ) -> Running:
        """Start a command, disturbed."""
        return start(words, self.shop.directory, self.prints.with_name(f"round{name}"), disturb)

    @contextmanager
    def of(self, label: str) -> Iterator[None]:
        """Say what is done in the message of whatever fails inside."""
        try:
            yield
        except AssertionError as err:
            raise AssertionError(f"{label}: {err}") from err

    def count(self, result: Result, *, may_die: Sequence[int] = ()) -> None:
        """Count how a disturbed command ended; AssertionError where that is not one of the ways it may."""
        if result.code == 0:
            self.counts["finished all the same"] += 1
        elif result.code in may_die:
            self.counts["killed"] += 1
        else:
            assert result.refused, f"neither finished nor refused in one clear line: {result}"
            self.counts["refused clearly"] += 1


def stores_hold(round_: Round, command: Command) -> None:
    """After a disturbance every store verifies, or is not begun; one under repair may still be damaged."""
    for path in sorted(round_.shop.directory.glob("*.zarr")):
        if command.prepare is not None or (path.name in command.writes and not (path / "zarr.json").exists()):
            continue
        result = round_.call("verify", path.name)
        assert result.code == 0, f"the store does not verify afterwards: {result}{result.out}"


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of files that are missing, added or of other content."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def same_after(round_: Round, command: Command, whole: Whole) -> None:
    """The command, run again undisturbed, ends as the undisturbed run did (or finds that there is nothing to do)."""
    result = round_.call(*command.words)
    assert result.code == 0 or result.refused, f"it does not go on: {result}"
    wrong = differences(files_of(round_.shop.directory), whole.files)
    assert not wrong, f"not what an undisturbed run leaves: {wrong[:8]}; {result}"
    if command.name == "predict":
        assert result.out == whole.result.out, "other predictions"
    round_.counts["resumed to the same"] += 1


def finished_right(round_: Round, command: Command, whole: Whole, result: Result) -> None:
    """A command that said it was done has done it; what it warned of may be missing."""
    found = {name: data for name, data in files_of(round_.shop.directory).items() if not name.endswith(".tmp")}
    wrong = differences(found, whole.files)
    if "warning: " in result.err:
        wrong = [name for name in wrong if name in found]
    assert not wrong, f"said to be done, and is not: {wrong[:8]}; {result}"


def disturbed(
    round_: Round,
    command: Command,
    whole: Whole,
    disturbances: Sequence[tuple[str, Callable[[Running], None] | None, Callable[[], object]]],
    *,
    may_die: Sequence[int] = (KILLED,),
    relief: Callable[[], object] = lambda: None,
) -> None:
    """Run a command once per disturbance (label, what to do to the process, what to do in it), then to the end.

    `relief` ends what disturbs from outside.
    """
    labels = [command.name]
    for label, outside, inside in disturbances:
        labels.append(label)
        with round_.of(", ".join(labels)):
            running = round_.start(command.words, inside)
            if outside is not None:
                outside(running)
            result = running.wait()
            relief()
            round_.count(result, may_die=may_die)
            if result.code == 0:
                finished_right(round_, command, whole, result)
            stores_hold(round_, command)
    with round_.of(", ".join(labels)):
        same_after(round_, command, whole)
