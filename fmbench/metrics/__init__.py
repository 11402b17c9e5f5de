"""Metrics: pure functions on arrays. Feature extraction is separate from the distances."""
