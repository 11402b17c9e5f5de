"""Settings as data: the names a config may use, its typed model, and the spec of every job. Imports nothing heavy."""
