"""From a prompt to vectors and tokens: one file per encoder, each loading its own weights."""
