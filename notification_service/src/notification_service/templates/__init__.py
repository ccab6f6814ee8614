"""Templates: the words of a notification per event type, channel and locale, rendered in a sandbox."""
