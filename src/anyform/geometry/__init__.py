"""Meshes, distance fields, file formats and print preparation. numpy only: no torch below this package."""
