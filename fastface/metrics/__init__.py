"""Scores -> figures, with numpy, scipy and scikit-learn only."""
