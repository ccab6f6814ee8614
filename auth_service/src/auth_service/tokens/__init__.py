"""What a caller can prove: access tokens, signing keys, logins, refresh, tickets, introspection."""
