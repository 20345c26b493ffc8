"""The registry: exposures, collections, validity ranges, queries.  Only this room imports the Butler."""
