"""Data sets: prepared once into memory-mapped arrays with a manifest, then read by every stage.

``sources`` lists where they come from, a module for each format; ``writer`` writes what a source gives (``raw``) and
``prepared`` reads it. ``download`` knows where files are, ``images`` decodes them.
"""
