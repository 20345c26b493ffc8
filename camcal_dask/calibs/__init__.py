"""One module per calibration type: what it needs, its graph, its product."""
