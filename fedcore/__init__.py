"""Everything that trains across sites: tasks, features, models, strategies, engines."""
