"""Instrument signature removal: ordered steps, each one function on a block."""
