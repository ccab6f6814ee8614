"""How many notifications went which way, from rolled-up tables."""
