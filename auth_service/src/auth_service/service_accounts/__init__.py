"""Programs that act for themselves: their scopes and secrets."""
