"""What a federation is asked for."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fedcore.faults.plan import FaultPlan
from privacy.terms import Terms

Engine = Literal["inline", "simulation"]


class FederationRequest(BaseModel):
    """What to train, with what and how.

    Attributes:
        model: a name of `fedcore.models.model.names()`, or a user's `module:NAME`.
        strategy: a name of `fedcore.strategies.strategy.names()`, a federated strategy or an anchor; or `module:NAME`.
        rounds: rounds of each setting; None: as the model's recipe says.
        settings: the settings to try, each the model's and the strategy's hyperparameters together, what is left out as
            declared; None: the recipe's.
        config: hyperparameters that override the settings', for all of them.
        seed: the cell's seed.
        min_sites: the fewest sites whose answers make a round; a strategy may need more.
        fraction: the share of the sites that is asked in a round.
        faults: what goes wrong on purpose; anchors suffer none of it.
        privacy: the terms on which each site takes part; None: without noise. Anchors know none.
        secure_aggregation: whether the coordinator learns sums of the sites' models only (`privacy.secagg`).
        protocol: another body of rules for data, models and strategies: a name of `fedcore.protocols`.
        engine: where the federation runs; anchors always run in process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    strategy: str
    rounds: int | None = Field(default=None, ge=1)
    settings: tuple[dict[str, int | float], ...] | None = Field(default=None, min_length=1)
    config: dict[str, int | float] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    min_sites: int = Field(default=1, ge=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    faults: FaultPlan | None = None
    privacy: Terms | None = None
    secure_aggregation: bool = False
    protocol: str | None = None
    engine: Engine = "inline"
