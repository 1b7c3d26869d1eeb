"""Hospitals with known truth, written in the genuine export formats."""
