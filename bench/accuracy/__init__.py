"""What heads are worth: one table over several long-tailed problems, made of records of single runs.

The one rule: test rows are not in the store that anything trains on or chooses by; they are shown to finished heads.
Start reading at `problems` (rows), then `heads`, `run` (records), `page` and `defaults`.
"""
