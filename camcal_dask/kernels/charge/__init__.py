"""What happens to charge in the silicon: deferred charge, the brighter-fatter effect, persistence."""
