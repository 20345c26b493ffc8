"""Statistics of corrected exposures and what they are compared with."""
