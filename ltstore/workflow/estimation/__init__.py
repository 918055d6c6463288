"""Time and memory of the steps, from the rates of a machine and formulas over rows, features and classes."""
