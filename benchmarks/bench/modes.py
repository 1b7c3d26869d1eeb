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


class Noise(StrEnum):
    """Who adds the noise that a budget asks for: each site all of its own, or the sites together on secure sums."""

    local = "local"
    distributed = "distributed"


SHARED = (
    "private against the coordinator and one site, if the coordinator follows the protocol of secure aggregation and "
    "all other sites add their share"
)
"""What noise that sites share takes for granted."""
