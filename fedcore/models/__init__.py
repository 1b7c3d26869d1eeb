"""Models, one a file, registered by being there."""
