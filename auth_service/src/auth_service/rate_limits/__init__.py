"""How often something may be tried, counted in the database so that all workers count together."""
