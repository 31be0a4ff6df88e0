"""Measurements against the native program and other emulators, all in one run: `python -m benchmarks --help`."""
