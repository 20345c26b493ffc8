"""Kernels of the simulator: the sensor and its random numbers."""
