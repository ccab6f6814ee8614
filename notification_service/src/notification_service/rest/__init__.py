"""What all HTTP endpoints share: strict JSON, problem bodies, correlation ids, limits, pages, who is calling."""
