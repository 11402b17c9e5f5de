"""fmbench: a reproducible benchmark of flow matching and diffusion.

Nothing is imported here on purpose: every subcommand of the command line pays
only for what it uses (``import torch`` alone costs seconds).
"""

__version__ = "0.2.0"
