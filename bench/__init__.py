"""What ltstore is measured by: ratios of candidates that take turns in one run, each checked before it is timed.

The one rule: a candidate whose answer is wrong is refused, not timed. Start reading at `timing`, then any case
under `cases`; `python -m bench list` names them. Comes with the source checkout, not with the wheel.
"""
