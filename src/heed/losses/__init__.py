"""Losses as pure functions of tensors: unreduced values out, reduced once by `masked.reduce`."""
