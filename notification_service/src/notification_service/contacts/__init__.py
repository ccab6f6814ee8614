"""Where users can be reached outside Herald: addresses per channel, proved to be theirs, and those that are left alone."""
