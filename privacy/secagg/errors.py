"""Why a round of secure aggregation comes to no sum. (What a site refuses is a `ReleaseError`.)"""


class NoSumError(ValueError):
    """There is no sum: one sentence."""


class TooFewError(NoSumError):
    """Too few sites are left for their sum to be learnt."""


class WrongShareError(NoSumError):
    """What the sites answered does not fit together."""
