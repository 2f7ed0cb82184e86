"""3D representations that render differentiably: what the systems optimise."""
