"""Representations of a patient history: tabular, sequence, series."""
