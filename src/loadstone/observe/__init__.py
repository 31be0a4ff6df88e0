"""Turns events into tables: the recorder, the trace, the fault profile, symbols."""
