"""The end table: seeds summed up without mixing what moves a number."""

from __future__ import annotations

import pytest

from leaderboard.metric import Metric, Scope
from leaderboard.record import new_run_id
from leaderboard.spec import Configured
from leaderboard.tables import summary


@pytest.fixture
def run(make_record, make_spec):
    """A record of this seed with one AUROC (none if value is None) and the interval value -0.1 to value +0.05."""

    def make(seed, value, *, scope="pooled", site=None, run_id=None, spec=None, **parts):
        template = make_record().metrics[0]
        ci = template.ci.model_copy(update={"low": (value or 0) - 0.1, "high": (value or 0) + 0.05})
        metric = Metric(
            **{
                **dict(template),
                "scope": Scope(kind=scope, id=site),
                "value": value,
                "ci": None if value is None else ci,
                "se": None,
                "suppressed": "9 patients; at least 20 are needed" if value is None else None,
            }
        )
        spec = spec or make_spec()
        spec = spec.model_copy(update={"seed": seed, "split_seed": seed})
        return make_record(spec=spec, metrics=(metric,), run_id=run_id or new_run_id(seed), **parts)

    return make


def test_a_number_is_the_mean_over_seeds_and_of_their_intervals_ends(run):
    (row,) = summary([run(1, 0.7), run(0, 0.8)], ["auroc"], ["pooled"])
    assert (row.task, row.model, row.strategy) == ("mortality/in_hospital/first_24h", "logistic", "fedavg")
    assert row.seeds == (0, 1)
    number = row.numbers["auroc"]
    assert (number.value, number.low, number.high) == pytest.approx((0.75, 0.65, 0.80))
    assert (number.seed_low, number.seed_high, number.reason) == (0.7, 0.8, None)


def test_a_seed_without_a_value_leaves_no_mean_of_the_others(run):
    number = summary([run(0, 0.8), run(1, None)], ["auroc"], ["pooled"])[0].numbers["auroc"]
    assert (number.value, number.low, number.high) == (None, None, None)
    assert number.reason == "9 patients; at least 20 are needed (in 1 of 2 seeds)"


def test_each_external_site_has_a_line(run):
    at_two = run(0, 0.8, scope="external", site="west")
    at_two = at_two.model_copy(
        update={"metrics": (*at_two.metrics, *run(0, 0.7, scope="external", site="east").metrics)}
    )
    pooled, worst, east, west = summary([at_two], ["auroc"])
    assert (pooled.scope, worst.scope, east.sites, west.sites) == ("pooled", "worst-site", ("east",), ("west",))
    assert (east.numbers["auroc"].value, west.numbers["auroc"].value) == (0.7, 0.8)


def test_a_metric_that_was_not_scored_is_said_to_be_so(run):
    assert summary([run(0, 0.8)], ["ici"], ["pooled"])[0].numbers["ici"].reason == "not scored"


def test_failed_cells_and_older_runs_count_for_nothing(run, make_record, make_spec):
    old, new = run(0, 0.7, run_id=new_run_id(5)), run(0, 0.8, run_id=new_run_id(6))
    failed = make_record(spec=make_spec(seed=3), status="failed")
    for order in ([old, new, failed], [failed, new, old]):
        (row,) = summary(order, ["auroc"], ["pooled"])
        assert (row.seeds, row.numbers["auroc"].value) == ((0,), 0.8)
    assert summary([failed]) == []


def test_cells_that_differ_in_a_setting_never_share_a_row(run, make_spec):
    other = make_spec().model_copy(update={"model": Configured(name="logistic", config={"l2": 10.0})})
    rows = summary([run(0, 0.7), run(0, 0.8, spec=other)], ["auroc"], ["pooled"])
    assert [row.numbers["auroc"].value for row in rows] == [0.7, 0.8]


def test_the_worst_site_row_names_each_site_that_was_worst(run):
    records = [run(0, 0.7, scope="worst-site", site="usa"), run(1, 0.6, scope="worst-site", site="boston")]
    (row,) = summary(records, ["auroc"], ["worst-site"])
    assert row.sites == ("boston", "usa")
    assert row.numbers["auroc"].value == pytest.approx(0.65)
