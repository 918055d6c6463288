"""Killed and resumed, damaged and read, round after round: nothing lost, shifted, or silently wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of tests/support in a process of its own: it forks, and this one may have threads."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return subprocess.run(
        [sys.executable, "-m", name, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_twenty_rounds_of_kill_and_resume() -> None:
    done = run_module("support.kill_stress", "--rounds", "20", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert " 20  rounds" in done.stdout


@pytest.mark.slow
@pytest.mark.stress
def test_a_thousand_rounds_of_kill_and_resume() -> None:
    done = run_module("support.kill_stress", "--rounds", "1000", "--seed", "20261124")
    assert done.returncode == 0, done.stderr
    assert "1000  rounds" in done.stdout


def test_damaged_stores_never_crash_and_are_never_silently_wrong() -> None:
    done = run_module("support.store_fuzz", "--rounds", "30", "--seed", "4")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.stress
def test_thousands_of_damaged_stores() -> None:
    done = run_module("support.store_fuzz", "--rounds", "5000", "--seed", "20261124")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_round_of_every_kind_of_fault() -> None:
    done = run_module("support.campaign", "--rounds", "1", "--seed", "3", "--no-text", "--minutes", "20")
    assert done.returncode == 0, done.stderr
    assert "races " in done.stdout


@pytest.mark.slow
@pytest.mark.stress
def test_half_an_hour_of_faults() -> None:
    done = run_module("support.campaign", "--minutes", "30", "--seed", "20261124")
    assert done.returncode == 0, done.stderr
