"""From meshes and fields to pictures; see raster.py for visibility and shading.py for pictures of meshes."""
