"""Defects: bad pixels found in combined images."""
