"""What only Herald's own services may ask, with the internal service key."""
