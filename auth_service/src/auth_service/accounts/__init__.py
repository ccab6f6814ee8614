"""Who exists: users, their profile, password, second factor, and what an administrator does to them."""
