"""Asks the real kernel the same question and compares. Import the modules themselves; nothing is loaded here."""
