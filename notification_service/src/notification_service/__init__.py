"""Accepts, routes, keeps, pushes and delivers notifications.

The path of one notification is readable from the packages: `intake` (accept) → `routing` (decide) → `mailbox` (keep) →
`dispatch` (publish what is kept) → `gateway` (push to devices). `entrypoints` wires them together.
"""
