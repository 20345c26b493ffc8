"""Statistics of every amp and the tests that judge them."""
