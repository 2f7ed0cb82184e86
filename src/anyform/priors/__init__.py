"""Frozen generative models, each assembled into a `diffusion.prior.Prior` by one plain function."""
