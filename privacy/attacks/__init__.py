"""Attacks as their papers state them, on arrays: numbers in, scores and reconstructions out.

One file an attack. None of them knows hospitals, federations or records; who runs them says what the attacker sees.
"""
