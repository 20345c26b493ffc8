"""Before a run: recipes, exposures, plans, quanta and their inputs."""
