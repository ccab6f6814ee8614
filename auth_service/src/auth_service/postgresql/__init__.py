"""Django's PostgreSQL, with a pool that notices a restart of the database before a request does."""
