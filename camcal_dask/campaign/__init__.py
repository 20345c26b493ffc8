"""Pipelines to plans of quanta, run on any cluster."""
