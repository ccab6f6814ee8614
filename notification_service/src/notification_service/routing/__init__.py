"""Stage 2, decide: pure functions from (notification, directory, rules) to deliveries, each with its reason."""
