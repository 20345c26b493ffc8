"""What the readout electronics add: overscan, crosstalk, offsets between amps, saturation, tearing."""
