"""Pictures of what records say, as SVG and PNG: one file a kind of picture."""
