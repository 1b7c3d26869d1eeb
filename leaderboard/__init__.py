"""Evaluators, statistics, the result record and its store. No torch, flwr or ray."""
