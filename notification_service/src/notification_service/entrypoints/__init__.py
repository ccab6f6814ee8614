"""One module per process, and what they share: the only place where objects are built and wired."""
