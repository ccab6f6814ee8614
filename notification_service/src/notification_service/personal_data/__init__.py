"""What this service holds about a person: erasing all of it when the account is, and showing it to its owner."""
