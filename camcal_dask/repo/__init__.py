"""Butler and cubes: open, look up, ingest, register, certify."""
