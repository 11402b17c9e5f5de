"""Metrics: pure functions on arrays. Feature extraction is apart from distance."""
