"""What goes wrong at the sites of a federation, on purpose: read from a file, drawn from the seed, done to replies."""
