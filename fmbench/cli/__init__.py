"""The command line: one module for each group of commands, and ``main`` that puts them together.

Many parameters: typer makes an option of each parameter of a command's function, so a command has as many parameters as options.
Imports of torch, pandas and other heavy packages stay inside the functions, so that ``fmbench --help`` answers at once.
"""
