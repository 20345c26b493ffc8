"""Past runs: records, attempts, history, repeating a run."""
