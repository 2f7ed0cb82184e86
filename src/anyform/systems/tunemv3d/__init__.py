"""TuneMV3D: a frozen 2D model, tuned to draw consistent views of one object and the surface they show."""
