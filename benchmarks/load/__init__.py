"""The load: a process that publishes and holds sockets for a few microseconds of CPU time per message."""
