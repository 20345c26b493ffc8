"""One module a calibration type: what it needs, its graph, its product."""
