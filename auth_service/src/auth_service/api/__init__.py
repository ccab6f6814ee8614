"""What every REST endpoint shares: access rules, parsing, errors, pages, addresses, documentation."""
