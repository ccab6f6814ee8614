"""Groups of users, and who is in them."""
