"""The training loop: batches, one step, learning rates, snapshots, number formats."""
