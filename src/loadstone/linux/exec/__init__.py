"""execve(2): from a path to the first instruction of a program."""
