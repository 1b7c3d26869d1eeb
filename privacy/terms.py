"""On what terms a site takes part: how much privacy it gives away, and with which noise."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Terms(BaseModel):
    """A site's terms for one federation; its unit is the patient.

    Attributes:
        epsilon: of everything the site releases of its training patients, at `delta`.
        delta: at most a tenth of 1/patients; None: just that, for each site by its own number of training patients,
            rounded up to a power of two.
        statistics: the share of epsilon that is for what the sites agree on before they train.
        place: `local`: each site adds all the noise that its patients need; `distributed`: the sites share it, on a
            secure sum (`privacy.distributed`).
        noise: `cryptographic`, or `seeded` by the cell's seed, with which nothing is claimed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1)
    statistics: float = Field(default=0.4, gt=0, lt=1)
    place: Literal["local", "distributed"] = "local"
    noise: Literal["cryptographic", "seeded"] = "cryptographic"
