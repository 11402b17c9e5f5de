"""The few error types of the package.

Two kinds are told apart everywhere:

* the run cannot be done as asked (:class:`ConfigError`, :class:`DataError`,
  :class:`CheckpointError`, :class:`LockedError`): the command stops with a
  message that says the remedy, and nothing is written;
* the run was done and the numbers went bad (:class:`DivergedError`): that is a
  result, so it becomes a row with a status and a reason.
"""


class FmbenchError(Exception):
    """Base class: an error whose message is meant for the person at the keyboard."""


class ConfigError(FmbenchError):
    """The settings are wrong or cannot be combined."""


class DataError(FmbenchError):
    """A data file, or the output of an earlier stage, is missing, truncated or of the wrong kind."""


class CheckpointError(FmbenchError):
    """A checkpoint or a weights file cannot be used."""


class LockedError(FmbenchError):
    """Another process is working on the same thing."""


class DivergedError(FmbenchError):
    """A loss, a state or a step size is no longer a finite, useful number."""
