"""How long the protocol's messages are, and the fewest sites it has."""

FEWEST = 3
"""A sum of two is no secret from either of them."""

SECRET_BYTES = 32
KEY_BYTES = 32
KEYS_BYTES = 2 * KEY_BYTES
TAG_BYTES = 16
SHARE_BYTES = 33
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES
"""Two shares and the tag that authenticates them."""
