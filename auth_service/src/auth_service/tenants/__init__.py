"""Tenants: every user, group and service account belongs to exactly one, and nobody reads across them."""
