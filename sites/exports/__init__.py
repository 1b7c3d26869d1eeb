"""What each kind of hospital export means, one a file, registered by being there."""
