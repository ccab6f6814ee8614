"""Who is who: the mirror of the auth service's users, groups and roles, and the verification of access tokens."""
