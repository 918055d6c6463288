"""The published protocol on a published data set: cuts, baselines, seeds, one table."""
