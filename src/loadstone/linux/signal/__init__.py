"""Signals: what is pending, who is sent one, and how it reaches a program."""
