"""The fault campaign: whole commands under every kind of fault, round after round, and nothing lost.

    PYTHONPATH=tests python -m support.campaign --minutes 30 --seed 0 [--only KIND] [--first ROUND] [--rounds N]

`workshop` makes the stores, models and images that rounds start from and lists the commands, `process` runs a command
in a fork, `trial` is what most kinds share (disturb, look, run again, compare with an undisturbed run), `faults.c` is
the file system that fails. One file per kind of fault. A round is a function of (seed, kind, round) but for the
moments at which a process is hit by the clock.
"""
