"""What a user may ask of the cache."""

from enum import StrEnum


class CacheMode(StrEnum):
    """Whether records that are there serve: by default they do; `ignore` runs all anew, `only` runs none."""

    default = "default"
    ignore = "ignore"
    only = "only"


class Rerun(StrEnum):
    """Which cells that have a record run again."""

    failed = "failed"
    all = "all"
