"""Engines sample completions from a policy: in process, or from a script."""
