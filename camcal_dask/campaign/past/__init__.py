"""What was run: records, attempts, history, running again."""
