"""Training data: meshes in, shards of distance grids, views, depths, sketches, points and captions out."""
