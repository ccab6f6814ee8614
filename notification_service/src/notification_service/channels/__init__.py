"""Stage 6, the other ways out: one folder per channel behind one interface, a retry ladder, circuit breakers.

planned → keep (rows) → queueing (RabbitMQ) → worker (check, claim, send) → record (attempt, state) → retry, or the end.
"""
