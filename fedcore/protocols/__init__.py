"""Published benchmarks' own rules for data, models and strategies, one a file."""
