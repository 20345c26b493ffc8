"""Single bad pixels: masks, regions, interpolation, defects, cosmic rays, hot pixels."""
