"""The true risk of a simulated stay is the probability of its label, whoever asks and however it is binned."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sites.simulate.hospital import Hospital, Traps, default_hospitals
from sites.simulate.observations import readings
from sites.simulate.population import Population, populate
from sites.simulate.severity import ICU, LEVELS, SEVERITY, WARD, Course, walk
from sites.simulate.truth import ADMISSION_TASK, IN_ICU_TASK, TASKS, samples
from sites.simulate.variables import VARIABLES


@pytest.fixture(scope="module")
def populations() -> list[Population]:
    return [populate(hospital, seed=11) for hospital in default_hospitals(6, 3500)]


@pytest.fixture(scope="module")
def truth(populations: list[Population]) -> pl.DataFrame:
    return pl.concat(samples(p).with_columns(hospital=pl.lit(p.hospital.name)) for p in populations)


def auroc(label: np.ndarray, score: np.ndarray) -> float:
    ranks = pl.Series(score).rank("average").to_numpy()
    positive = int(label.sum())
    return float((ranks[label].sum() - positive * (positive + 1) / 2) / (positive * (len(label) - positive)))


def excess(frame: pl.DataFrame) -> float:
    """Observed minus expected deaths, in standard errors."""
    risk, died = frame["true_risk"].to_numpy(), frame["label"].sum()
    return float((died - risk.sum()) / np.sqrt((risk * (1 - risk)).sum()))


@pytest.mark.parametrize("task", TASKS)
def test_deaths_agree_with_the_true_risk_in_every_tenth_of_it(truth: pl.DataFrame, task: str) -> None:
    of_task = truth.filter(pl.col("task") == task).sort("true_risk")
    tenths = [of_task.slice(i * len(of_task) // 10, len(of_task) // 10) for i in range(10)]
    deviations = np.array([excess(t) for t in tenths])
    assert len(of_task) > 10_000
    assert np.abs(deviations).max() < 4
    assert (deviations**2).sum() < 29.6  # chi-square with 10 degrees of freedom, p = 0.001


@pytest.mark.parametrize("task", TASKS)
def test_deaths_agree_with_the_true_risk_in_every_hospital(truth: pl.DataFrame, task: str) -> None:
    for (name,), of_hospital in truth.filter(pl.col("task") == task).group_by("hospital"):
        assert abs(excess(of_hospital)) < 4, name


def test_deaths_agree_with_the_true_risk_whatever_else_is_known(
    populations: list[Population], truth: pl.DataFrame
) -> None:
    """Age, reason for admission, time to the ICU and earlier admissions tell nothing beyond the true risk."""
    for population in populations:
        known = truth.filter(
            (pl.col("hospital") == population.hospital.name) & (pl.col("task") == "mortality/in_hospital/first_24h")
        ).join(population.admissions, on="admission")
        known = known.with_columns(
            again=pl.col("patient").is_duplicated(), old=pl.col("age") > 75, late=pl.col("offset_minutes") > 3000
        )
        for column in ("reason", "again", "old", "late"):
            for _, group in known.group_by(column):
                assert abs(excess(group)) < 4.5 or group["true_risk"].sum() < 5, (population.hospital.name, column)


def test_true_risk_ranks_as_the_brief_wants_and_better_than_any_part_of_it(
    populations: list[Population], truth: pl.DataFrame
) -> None:
    of_task = truth.filter(pl.col("task") == "mortality/in_hospital/first_24h")
    oracle = auroc(of_task["label"].to_numpy(), of_task["true_risk"].to_numpy())
    assert 0.85 < oracle < 0.92
    mortality = of_task.group_by("hospital").agg(pl.col("label").mean())["label"]
    assert mortality.min() > 0.06
    assert mortality.max() < 0.22
    latent = []
    for p in populations:
        mine = of_task.filter(pl.col("hospital") == p.hospital.name).with_columns(tick=pl.col("offset_minutes") // 60)
        latent.append(mine.join(p.hours, on=["admission", "tick"]).join(p.admissions, on="admission"))
    parts = pl.concat(f.select("label", "level", "frailty", "age") for f in latent)
    for column in ("level", "frailty", "age"):
        assert auroc(parts["label"].to_numpy(), parts[column].to_numpy()) < oracle


def test_a_logistic_regression_on_what_was_measured_comes_close_to_the_oracle_and_not_beyond(
    populations: list[Population], truth: pl.DataFrame
) -> None:
    tables = []
    for p in populations:
        asked = truth.filter(
            (pl.col("hospital") == p.hospital.name) & (pl.col("task") == "mortality/in_hospital/first_24h")
        )
        seen = asked.join(
            readings(p).select("admission", "variable", "minute", "stored", "value"), on="admission"
        ).filter((pl.col("stored") <= pl.col("offset_minutes")) & (pl.col("minute") > pl.col("offset_minutes") - 1440))
        value = pl.col("value")
        wide = (
            seen.group_by("stay", "variable", maintain_order=True)
            .agg(last=value.last(), mean=value.median(), low=value.quantile(0.1), high=value.quantile(0.9))
            .pivot(on="variable", on_columns=range(len(VARIABLES)), index="stay")
        )
        tables.append(
            asked.join(wide, on="stay", how="left").join(p.admissions.select("admission", "age"), on="admission")
        )
    frame = pl.concat(tables, how="diagonal")
    held_out = np.random.default_rng(0).random(len(frame)) < 0.4
    x = frame.drop("admission", "stay", "task", "offset_minutes", "true_risk", "label", "hospital").to_numpy()
    model = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.01, max_iter=300)
    )
    model.fit(x[~held_out], frame["label"].to_numpy()[~held_out])
    label = frame["label"].to_numpy()[held_out]
    fitted = auroc(label, model.predict_proba(x[held_out])[:, 1])
    oracle = auroc(label, frame["true_risk"].to_numpy()[held_out])
    assert oracle - 0.05 < fitted < oracle


def test_closed_form_risks_agree_with_many_walks_from_one_state() -> None:
    course, n = Course.of(Hospital("x")), 20_000
    rng = np.random.default_rng(5)
    for level, frailty in ((int(np.searchsorted(SEVERITY, 2.0)), 5), (int(np.searchsorted(SEVERITY, 3.5)), 2)):
        start = np.full(n, level, np.int8), np.full(n, frailty, np.int8)
        paths = walk(course, np.full(n, ICU, np.int8), *start, rng)
        first = np.cumsum(paths.ticks) - paths.ticks
        expected = course.hospital_risk[ICU, frailty, level]
        assert abs(paths.died.mean() - expected) < 4 * np.sqrt(expected / n)

        # In this ICU stay, of those still in it 24 hours later.
        left = pl.DataFrame({"admission": paths.admission, "icu": paths.place == ICU})
        left = left.group_by("admission", maintain_order=True).agg(
            hours=pl.col("icu").cast(pl.Int32).cum_prod().sum(), total=pl.len()
        )
        there = left["hours"].to_numpy() > 24
        died_there = paths.died & (left["hours"] == left["total"]).to_numpy()
        expected = course.icu_risk(24)[frailty, level]
        assert abs(died_there[there].mean() - expected) < 4 * np.sqrt(expected / there.sum())

        # On the ward, of those who come to the ICU later.
        paths = walk(course, np.full(n, WARD, np.int8), *start, rng)
        first = np.cumsum(paths.ticks) - paths.ticks
        comes = np.minimum.reduceat(paths.place, first) == ICU
        expected = course.ward_risk_of_later_icu[frailty, level]
        assert abs(paths.died[comes].mean() - expected) < 4 * np.sqrt(expected / comes.sum())


def test_probabilities_of_every_hour_are_probabilities() -> None:
    for hospital in default_hospitals(60, 1):
        course = Course.of(hospital)
        assert (course.death + course.home + course.transfer < 1).all()
        assert (course.up >= 0).all()
        assert (course.down >= 0).all()
        assert (course.hospital_risk > 0).all()
        assert (course.hospital_risk < 1).all()
        assert (np.diff(course.hospital_risk, axis=2) > 0).all()  # sicker is worse, everywhere


def test_the_same_seed_gives_the_same_patients_and_another_gives_others() -> None:
    hospital = Hospital("x", patients=300)
    first, again, other = (populate(hospital, seed) for seed in (1, 1, 2))
    assert first.hours.equals(again.hours)
    assert first.admissions.equals(again.admissions)
    assert readings(first).equals(readings(again))
    assert not first.admissions.equals(other.admissions)


def test_a_hospital_is_the_same_whoever_stands_beside_it() -> None:
    alone, in_company = default_hospitals(1, 200)[0], default_hospitals(6, 200)[0]
    assert populate(alone, 3).hours.equals(populate(in_company, 3).hours)


def test_the_dead_do_not_come_back() -> None:
    population = populate(Hospital("x", patients=2000, later_admissions=1.5), 1)
    ends = population.admissions.group_by("patient", maintain_order=True).agg(pl.col("died"), pl.col("admitted"))
    assert not ends.filter(pl.col("died").list.slice(0, pl.col("died").list.len() - 1).list.any()).height
    assert population.admissions.group_by("patient").len()["len"].max() > 3
    following = population.admissions.with_columns(before=pl.col("discharged").shift(1).over("patient"))
    assert (following["admitted"] > following["before"]).fill_null(value=True).all()


def test_a_stay_that_ends_at_24_hours_to_the_minute_is_in_no_cohort() -> None:
    population = populate(Hospital("x", patients=3000, traps=Traps(exactly_24h=1.0)), 1)
    exact = population.stays.filter(pl.col("out_minute") - pl.col("in_minute") == 1440)
    assert len(exact) > 10
    found = samples(population).filter(pl.col("task") != ADMISSION_TASK)
    assert found.join(exact, on="stay").is_empty()
    lengths = population.stays.with_columns(hours=(pl.col("out_minute") - pl.col("in_minute")) / 60)
    for task, hours in (
        ("mortality/in_hospital/first_24h", 24),
        ("mortality/in_hospital/first_48h", 48),
        (IN_ICU_TASK, 48),
    ):
        expected = lengths.filter(pl.col("hours") > hours)["stay"]
        assert found.filter(pl.col("task") == task)["stay"].to_list() == expected.to_list()


def test_nothing_is_measured_after_the_end_of_a_stay_but_the_late_results_of_the_dead() -> None:
    for rate in (0.0, 1.0):
        population = populate(Hospital("x", patients=400, traps=Traps(after_death=rate)), 1)
        found = readings(population).join(population.admissions, on="admission")
        late = found.filter(pl.col("minute") >= pl.col("minutes"))
        assert late["admission"].n_unique() == (population.admissions["died"].sum() if rate else 0)
        assert late["died"].all()


def test_hospitals_measure_as_their_knobs_say() -> None:
    few, many = (populate(replace(Hospital("x", patients=300), vitals_every_hours=k), 1) for k in (4, 1))
    assert len(readings(many)) > 1.5 * len(readings(few))
    without = populate(Hospital("x", patients=300, never=frozenset({"lactate"})), 1)
    lactate = next(i for i, v in enumerate(VARIABLES) if v.name == "lactate")
    assert lactate in readings(many)["variable"]
    assert lactate not in readings(without)["variable"]


def test_readings_follow_severity() -> None:
    population = populate(Hospital("x", patients=1500), 1)
    found = readings(population).with_columns(tick=pl.col("minute") // 60)
    found = found.join(population.hours.select("admission", "tick", "level"), on=["admission", "tick"])
    signs = {
        "heart_rate": 1,
        "systolic_pressure": -1,
        "oxygen_saturation": -1,
        "lactate": 1,
        "creatinine": 1,
        "gcs_eye": -1,
    }
    for name, sign in signs.items():
        index = next(i for i, v in enumerate(VARIABLES) if v.name == name)
        mine = found.filter(pl.col("variable") == index)
        assert sign * np.corrcoef(mine["value"].rank(), mine["level"])[0, 1] > 0.2, name


def test_an_unknown_case_mix_is_refused() -> None:
    with pytest.raises(ValueError, match="case_mix of hospital 'x' names 'measles'"):
        Hospital("x", case_mix={"measles": 1.0})


def test_levels_cover_the_scale() -> None:
    assert LEVELS == 37
    assert SEVERITY[0] == -3
    assert SEVERITY[-1] == 6
