"""How a model is fitted to one site's samples, one way a file."""
