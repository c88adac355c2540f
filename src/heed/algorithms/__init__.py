"""Algorithms: one page per procedure, from a configuration to a run."""
