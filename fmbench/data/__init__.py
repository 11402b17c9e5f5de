"""Data sets: prepared once into memory-mapped arrays with a manifest, then read by every stage.

``sources`` makes them, ``prepared`` writes and reads them.
"""
