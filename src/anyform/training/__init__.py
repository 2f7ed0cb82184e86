"""Training: one resumable loop for every model."""
