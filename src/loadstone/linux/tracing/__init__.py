"""ptrace(2): who traces whom, and what a tracer sees and sets."""
