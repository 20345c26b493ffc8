"""What is in the cubes: raws, products, statistics, and what of them can be used."""
