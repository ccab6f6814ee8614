"""Where users can be reached outside Herald: their proved addresses per channel, and addresses that are left alone."""
