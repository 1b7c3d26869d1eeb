"""Randomness by name: one seed for a cell, an independent stream for each consumer."""

import hashlib
import json

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The random stream of one consumer.

    Streams of different names are independent, and a new consumer changes no other's numbers
    (`numpy.random.SeedSequence` with the name's hash as the spawn key).

    Args:
        seed: the cell's seed, zero or more.
        names: who draws, from the general to the particular: `"train", site, round`. Settings that are
            tried draw alike, so that they differ in nothing but the setting.

    >>> int(stream(0, "init").integers(100)), int(stream(0, "init").integers(100))
    (34, 34)
    >>> int(stream(0, "train", "boston", 1).integers(100))
    30
    """
    digest = hashlib.sha256(json.dumps(names).encode()).digest()
    key = tuple(int(word) for word in np.frombuffer(digest, dtype="<u4"))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=key)))


def draw_seed(seed: int, *names: str | int) -> int:
    """One number below 2**63 from a stream, to seed what takes a seed (torch, xgboost, `random`)."""
    return int(stream(seed, *names).integers(2**63))
