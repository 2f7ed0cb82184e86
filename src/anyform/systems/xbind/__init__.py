"""XBind: any modality to a textured mesh by distilling a 2D and a 3D-aware prior in three phases."""
