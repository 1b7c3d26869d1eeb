"""What may leave a site, and what it costs."""
