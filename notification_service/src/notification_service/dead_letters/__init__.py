"""Messages that were given up, each with its reason: listed, replayed or discarded by an admin."""
