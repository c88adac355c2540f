"""Learners: whatever holds weights and improves them, without knowing the algorithm it serves."""
