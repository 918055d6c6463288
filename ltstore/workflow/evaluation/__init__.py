"""Models judged on a split, side by side, over seeds, with what they cost; and what the report shows of it."""
