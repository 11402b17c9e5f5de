"""The error types of the package, of two kinds.

* The run cannot be done as asked (:class:`ConfigError`, :class:`DataError`, :class:`CheckpointError`, :class:`LockedError`). The
  command stops with a message that says the remedy, and writes nothing.
* The run was done and the numbers went bad (:class:`DivergedError`). That is a result: it becomes a row with a status and a
  reason.
"""


class FmbenchError(Exception):
    """Base class: an error whose message is written for the user."""


class ConfigError(FmbenchError):
    """The settings are wrong or cannot be combined."""


class DataError(FmbenchError):
    """A data file, or the output of an earlier stage, is missing, truncated or of the wrong kind."""


class CheckpointError(FmbenchError):
    """A checkpoint or a weights file cannot be used."""


class LockedError(FmbenchError):
    """Another process is doing the same work."""


class DivergedError(FmbenchError):
    """A loss, a state or a step size is no longer a finite, useful number."""
