"""What /proc shows: its files, where their facts come from, and their text."""
