"""Stage 4, publish what is kept: confirms, returned messages understood, and the relay for what a crash left."""
