"""Diffusion mathematics: schedules, predictions, samplers, guidance, and what a prior is made of."""
