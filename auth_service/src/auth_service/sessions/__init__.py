"""What a login leaves behind: a session per device, its refresh tokens, its end."""
