"""One number on the leaderboard, with all that is needed to doubt it."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from leaderboard.block import Block, Count, Many, Name, Text

ScopeKind = Literal["pooled", "site", "site-macro", "worst-site", "external"]


class Scope(Block):
    """Over whom a metric was computed.

    `pooled`: the samples of all training sites as one list. `site`: one training site. `site-macro`: the unweighted
    mean of the sites' values. `worst-site`: the worst of the sites' values, `id` says which site. `external`: one site
    that took no part in training.
    """

    kind: ScopeKind
    id: Name | None = None

    @model_validator(mode="after")
    def _a_site_is_named(self) -> Self:
        if self.kind in {"site", "external"} and self.id is None:
            raise ValueError(f"a scope of kind {self.kind!r} names its site in `id`")
        if self.kind in {"pooled", "site-macro"} and self.id is not None:
            raise ValueError(f"a scope of kind {self.kind!r} has no `id`, found {self.id!r}")
        return self


class Interval(Block):
    """A confidence interval and how it was made.

    `b`: replicates drawn; `b_defined`: those in which the metric exists, which alone make the interval. `cluster`: what
    is drawn as a whole; `strata`: within what it is drawn.
    """

    level: float = Field(gt=0.0, lt=1.0)
    low: float
    high: float
    method: Name
    b: Count
    b_defined: Count
    cluster: Name
    strata: Name | None
    seed: Count

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"`low` {self.low} is above `high` {self.high}")
        if self.b_defined > self.b:
            raise ValueError(f"`b_defined` {self.b_defined} is above `b` {self.b}")
        return self


class Metric(Block):
    """A metric's value in one scope.

    Attributes:
        name: the evaluator's name, as `auroc`.
        direction: whether more is better (`max`), less is (`min`), or nearness to `ideal` is (`target`).
        ideal: the best value there is; required for `target`.
        unit: `1` for a number without a unit.
        scope: over whom.
        value: the number, or null if and only if `suppressed` says why there is none.
        n, n_pos, n_patients: samples, samples with the event, patients behind the number (0 where each of the n is a
            hospital, as `ci.cluster` says).
        n_sites, n_sites_excluded: for `site-macro` and `worst-site`, sites that count and sites without a value.
        ci: the interval, or null if and only if `suppressed` or `no_interval` says why.
        se: standard deviation of the bootstrap replicates.
        flags: surprises that a reader must see. `value-outside-interval`: the percentile interval of a biased
            functional (a minimum over sites) need not hold the point estimate.
        estimator: `exact` from predictions, or the name of the sketch it was computed from.
    """

    name: Name
    direction: Literal["max", "min", "target"]
    ideal: float | None = None
    unit: Name
    scope: Scope
    value: float | None
    n: Count
    n_pos: Count
    n_patients: Count
    n_sites: Count | None = None
    n_sites_excluded: Count | None = None
    ci: Interval | None = None
    se: float | None = Field(default=None, ge=0.0)
    suppressed: Text | None = None
    no_interval: Text | None = None
    flags: Many[Literal["value-outside-interval"]] = ()
    estimator: Name

    @property
    def key(self) -> tuple[str, str, str | None, str]:
        """What makes it the same metric in two records: name, scope and estimator.

        The worst site is found anew in each record, so its name is no part of the key.
        """
        site = None if self.scope.kind == "worst-site" else self.scope.id
        return self.name, self.scope.kind, site, self.estimator

    @model_validator(mode="after")
    def _a_number_or_a_reason(self) -> Self:
        if (self.value is None) != (self.suppressed is not None):
            raise ValueError("`value` is null if and only if `suppressed` gives the reason")
        if self.value is None and (self.ci is not None or self.se is not None or self.no_interval is not None):
            raise ValueError("a suppressed metric has neither `ci`, `se` nor `no_interval`")
        if self.value is not None and (self.ci is None) != (self.no_interval is not None):
            raise ValueError("`ci` is null if and only if `suppressed` or `no_interval` gives the reason")
        return self

    @model_validator(mode="after")
    def _the_interval_holds_the_value(self) -> Self:
        if self.value is None or self.ci is None:
            return self
        outside = not self.ci.low <= self.value <= self.ci.high
        if outside != ("value-outside-interval" in self.flags):
            where = "outside" if outside else "inside"
            raise ValueError(
                f"`value` {self.value} lies {where} its interval [{self.ci.low}, {self.ci.high}], "
                f"so the flag 'value-outside-interval' must {'' if outside else 'not '}stand in `flags`"
            )
        return self

    @model_validator(mode="after")
    def _counts_and_direction_agree(self) -> Self:
        if self.n_pos > self.n:
            raise ValueError(f"`n_pos` {self.n_pos} is above `n` {self.n}")
        if self.n_patients > self.n:
            raise ValueError(f"`n_patients` {self.n_patients} is above `n` {self.n}; each patient has a sample")
        if self.direction == "target" and (self.ideal is None or not math.isfinite(self.ideal)):
            raise ValueError("a metric of direction 'target' says its `ideal`")
        return self
