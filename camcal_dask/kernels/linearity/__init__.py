"""Linearity: corrections of every type and the fits that make them."""
