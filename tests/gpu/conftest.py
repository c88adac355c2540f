"""The tiny world, for the tests of this folder."""

from tests.tiny import tiny

__all__ = ["tiny"]
