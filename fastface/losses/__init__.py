"""Scores -> scores or losses: formulas without parameters."""
