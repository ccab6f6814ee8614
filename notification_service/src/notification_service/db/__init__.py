"""The database: engine, units of work, column types, migrations. SQLite and PostgreSQL by the same code."""
