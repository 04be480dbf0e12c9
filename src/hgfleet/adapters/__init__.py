"""The world outside, one vendor per module."""
