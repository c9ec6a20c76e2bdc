"""Runs that are killed, resumed, and compared with runs that nobody disturbed."""
