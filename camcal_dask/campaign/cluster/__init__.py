"""Where a run is carried out: profiles, back ends, workers."""
