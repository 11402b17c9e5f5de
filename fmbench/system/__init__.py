"""The machine: random streams, devices, processes, memory and progress."""
