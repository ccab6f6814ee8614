"""Preferences: which channels, categories and event types a user wants, when, and how bundled."""
