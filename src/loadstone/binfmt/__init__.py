"""Bytes of a file -> a plan: pure functions, no CPU, no memory, no reads beyond the headers."""
