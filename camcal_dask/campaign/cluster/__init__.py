"""Where it runs: profiles, back ends, workers."""
