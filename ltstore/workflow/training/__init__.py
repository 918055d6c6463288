"""Heads from selections: one, the best of a grid, the blend a backtest chooses, a mixture of two models."""
