"""What others need for the same work, measured in the same run (docs/benchmarks.md)."""
