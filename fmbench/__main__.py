"""Run the command line by ``python -m fmbench``: in a process that a server forks, if there is one, or else in this one."""

import sys

from fmbench.system.forkserver import run_forked

code = run_forked(sys.argv)
if code is None:
    from fmbench.cli.main import main
    from fmbench.system.quick_exit import run_and_exit

    run_and_exit(main)
sys.exit(code)
