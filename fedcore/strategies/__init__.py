"""Federated strategies that Flower lacks, one a file."""
