"""Secure aggregation: a coordinator learns the sum of the sites' vectors, and no single one of them."""
