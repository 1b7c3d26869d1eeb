"""The bench command: suites, the plan, the grid, one cell end to end."""
