"""The machine: random streams, devices, processes, memory, progress."""
