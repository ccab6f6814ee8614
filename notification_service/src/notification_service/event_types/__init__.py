"""Event types: what backends announce, and what a notification of that kind is by default."""
