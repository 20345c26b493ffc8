"""Means, moments, medians and counts of pixels."""
