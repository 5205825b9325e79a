"""Training runs: settings, the loop, checkpoints and logs."""
