"""Measurements against other libraries, and the recordings that parity tests compare with."""
