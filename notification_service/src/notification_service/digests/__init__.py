"""What time brings: digests, schedules and escalations."""
