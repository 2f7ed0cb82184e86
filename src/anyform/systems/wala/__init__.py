"""WaLa: diffusion on the quantised latents of a signed distance grid's wavelet tree, under any condition."""
