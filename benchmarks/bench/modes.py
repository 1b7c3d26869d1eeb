"""What a user may choose of how cells are run; none of it is part of what was asked."""

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


class Engine(StrEnum):
    """Where a federation runs: in this process, or in Flower's simulation engine."""

    inline = "inline"
    simulation = "simulation"


class Device(StrEnum):
    """Where networks are trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
