"""Everything that may leave a site: mergeable sketches and message schemas."""
