"""Bias and dark: exposures combined into one image a detector."""
