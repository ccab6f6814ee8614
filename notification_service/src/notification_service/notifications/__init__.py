"""The notification itself: the entity every stage shares."""
