"""Audits: what optimisation did, read from runs and from sampled policies."""
