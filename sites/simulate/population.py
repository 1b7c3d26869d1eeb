"""Patients, their admissions and ICU stays, and the true risk of each: the latent truth behind an export.

A patient has an age, a sex and chronic diseases; an admission has a reason. With something unmeasured they make the
frailty type c and the severity on arrival z_0; from there `sites.simulate.severity` runs the stay. A patient who
survives may come back, as someone new: the next stay depends on the last through the covariates only, so the true risk
of each stay stands by itself.

Times are whole minutes. Ticks are hours from hospital admission, ICU stays begin at a tick, and what ends within hour
(k, k+1] ends at one of its 60 minutes, so that "in the ICU 24 hours after ICU admission" is presence at one tick.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from sites.simulate.hospital import REASONS, Hospital
from sites.simulate.severity import EMERGENCY, FRAILTIES, ICU, WARD, Course, level_of, walk

DISEASES = {
    # name: (prevalence at 65, log odds per decade of age, weight in frailty)
    "hypertension": (0.5, 0.35, 0.0),
    "diabetes": (0.28, 0.12, 0.35),
    "heart_failure": (0.2, 0.5, 0.9),
    "atrial_fibrillation": (0.18, 0.6, 0.3),
    "copd": (0.18, 0.25, 0.7),
    "kidney_disease": (0.17, 0.35, 0.9),
    "cirrhosis": (0.06, -0.2, 1.6),
    "cancer": (0.13, 0.2, 1.4),
    "dementia": (0.06, 0.9, 0.8),
}
"""The chronic diseases, with what age does to them and what they do to a patient."""

_ARRIVAL = {
    "sepsis": 0.75,
    "respiratory": 0.55,
    "cardiac": 0.1,
    "neurologic": 0.3,
    "surgical": -0.5,
    "gastrointestinal": 0.1,
    "trauma": -0.1,
    "renal": 0.2,
}


def stream(seed: int, *names: str) -> np.random.Generator:
    """The random stream of that name: independent of every other, the same on every machine."""
    return np.random.default_rng(np.random.SeedSequence([seed, *(zlib.crc32(n.encode()) for n in names)]))


@dataclass(frozen=True)
class Population:
    """A hospital's patients and what befell them; rows are in the order of their key.

    Attributes:
        hospital: Whose they are.
        seed: Of which federation.
        patients: patient (key, 0..), female, age (at first admission, years), race, weight_kg, height_cm, born (date),
            died_later (date of a death after the last discharge, or null), and a Boolean for each of `DISEASES`.
        admissions: admission (key), patient, admitted and discharged (datetime; the dead: of death), minutes (between
            the two), died, reason (index of `REASONS`), frailty, age (years), lead_hours (in the emergency department
            before a planned ICU stay).
        stays: stay (key), admission, tick (of ICU admission), in_minute, out_minute (from hospital admission), died (in
            the ICU), ordinal (1 for the first of its admission).
        hours: admission, tick, place (ICU, WARD, EMERGENCY), level, stay (null outside the ICU), minutes (60, or until
            what ended the stay within that hour); sorted by admission and tick.
    """

    hospital: Hospital
    seed: int
    patients: pl.DataFrame
    admissions: pl.DataFrame
    stays: pl.DataFrame
    hours: pl.DataFrame

    def stream(self, *names: str) -> np.random.Generator:
        """A random stream of this hospital."""
        return stream(self.seed, self.hospital.name, *names)


def _people(hospital: Hospital, rng: np.random.Generator) -> pl.DataFrame:
    n = hospital.patients
    age = np.clip(np.rint(rng.normal(hospital.age, 16, n)), 18, 99).astype(np.int64)
    female = rng.random(n) < 0.45
    columns: dict[str, npt.NDArray[np.generic]] = {
        "patient": np.arange(n, dtype=np.int32),
        "female": female,
        "age": age,
        "race": rng.choice(
            np.array(["WHITE", "BLACK", "HISPANIC", "ASIAN", "OTHER"]), n, p=[0.68, 0.14, 0.08, 0.05, 0.05]
        ),
        "height_cm": np.rint(rng.normal(176 - 13 * female, 7)),
        "weight_kg": np.round(np.clip(rng.normal(86 - 12 * female, 18), 38, 220), 1),
    }
    for name, (prevalence, decade, _) in DISEASES.items():
        logit = np.log(prevalence / (1 - prevalence) * hospital.comorbidity) + decade * (age - 65) / 10
        columns[name] = rng.random(n) < 1 / (1 + np.exp(-logit))
    return pl.DataFrame(columns)


def _arrivals(people: pl.DataFrame, hospital: Hospital, rng: np.random.Generator) -> pl.DataFrame:
    """One row for each admission that a patient would have if she survived the ones before."""
    later = rng.poisson(hospital.later_admissions, len(people))
    patient = np.repeat(np.arange(len(people), dtype=np.int32), 1 + later)
    n = len(patient)
    weights = np.array([hospital.case_mix.get(r, 0.0) for r in REASONS])
    reason = rng.choice(len(REASONS), n, p=weights / weights.sum()).astype(np.int8)
    burden = sum(
        (people[d].cast(pl.Float64).to_numpy() * w for d, (_, _, w) in DISEASES.items()), np.zeros(len(people))
    )
    years = people["age"].to_numpy().astype(np.float64)
    score = 0.75 * burden[patient] + 0.3 * (years[patient] - 62) / 10 + rng.normal(0, 0.75, n)
    frailty = np.clip(np.rint(3.0 + 1.25 * score), 0, FRAILTIES - 1).astype(np.int8)
    planned = rng.random(n) < hospital.icu_share
    shift = np.array([_ARRIVAL[r] for r in REASONS])[reason]
    mean = hospital.severity + shift + 0.16 * (frailty - 3.5) + np.where(planned, 0.75, -0.85)
    return pl.DataFrame(
        {
            "patient": patient,
            "reason": reason,
            "frailty": frailty,
            "start": np.where(planned, ICU, WARD).astype(np.int8),
            "level": level_of(mean + rng.normal(0, 1.0, n)),
            "lead_hours": np.where(planned, rng.integers(1, 7, n), 0).astype(np.int32),
        }
    )


def _hours(drawn: pl.DataFrame, hospital: Hospital, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run the chain: (the admissions that came to be, their hours without the waiting time)."""
    arrays = {c: drawn[c].to_numpy() for c in drawn.columns}
    paths = walk(Course.of(hospital), arrays["start"], arrays["level"], arrays["frailty"], rng)
    # The dead do not come back: admissions planned after a death never were.
    dead_before = pl.col("died").cast(pl.Int32).cum_sum().over("patient") - pl.col("died").cast(pl.Int32)
    came = drawn.with_columns(died=pl.Series(paths.died), old=pl.int_range(pl.len(), dtype=pl.Int32)).filter(
        dead_before == 0
    )
    number = np.full(len(drawn), -1, np.int32)
    number[came["old"].to_numpy()] = np.arange(len(came), dtype=np.int32)
    kept = number[paths.admission] >= 0
    admission = paths.admission[kept]
    hours = pl.DataFrame(
        {
            "admission": number[admission],
            "tick": paths.tick[kept] + arrays["lead_hours"][admission],
            "place": paths.place[kept],
            "level": paths.level[kept],
        }
    )
    return came.drop("old"), hours


def _waiting(came: pl.DataFrame) -> pl.DataFrame:
    """The hours in the emergency department before a planned ICU stay."""
    lead = came["lead_hours"].to_numpy()
    ends = np.cumsum(lead)
    return pl.DataFrame(
        {
            "admission": np.repeat(np.arange(len(came), dtype=np.int32), lead),
            "tick": (np.arange(int(lead.sum())) - np.repeat(ends - lead, lead)).astype(np.int32),
            "place": np.full(int(lead.sum()), EMERGENCY, np.int8),
            "level": np.repeat(came["level"].to_numpy(), lead),
        }
    )


def populate(hospital: Hospital, seed: int) -> Population:
    """Draw a hospital's patients and let their stays run.

    Args:
        hospital: The knobs.
        seed: Of the federation; with the hospital's name it fixes every draw.
    """
    people = _people(hospital, stream(seed, hospital.name, "people"))
    drawn = _arrivals(people, hospital, stream(seed, hospital.name, "arrivals"))
    came, hours = _hours(drawn, hospital, stream(seed, hospital.name, "course"))
    hours = pl.concat([_waiting(came), hours]).sort("admission", "tick")

    rng = stream(seed, hospital.name, "minutes")
    in_icu, same = pl.col("place") == ICU, pl.col("admission") == pl.col("admission").shift(1)
    begins = in_icu & ~(same & (pl.col("place").shift(1) == ICU)).fill_null(False)
    hours = hours.with_columns(
        begins=begins,
        last=(pl.col("admission") != pl.col("admission").shift(-1)).fill_null(True),
        stay=pl.when(in_icu).then(begins.cast(pl.Int32).cum_sum() - 1),
    )
    ends = pl.col("last") | (in_icu & (pl.col("stay").ne_missing(pl.col("stay").shift(-1))))
    since = pl.col("tick") - pl.col("tick").first().over("stay")
    n = len(hours)
    hours = hours.with_columns(
        ends=ends,
        minute=pl.Series(rng.integers(1, 61, n, dtype=np.int16)),
        exact=in_icu & (since == 23) & pl.Series(rng.random(n) < hospital.traps.exactly_24h),
    ).with_columns(minutes=pl.when(pl.col("ends") & ~pl.col("exact")).then(pl.col("minute")).otherwise(60))
    end_minute = (pl.col("tick") * 60 + pl.col("minutes")).cast(pl.Int32)

    lengths = hours.filter("last").select("admission", minutes=end_minute)
    admissions = came.with_columns(admission=pl.int_range(pl.len(), dtype=pl.Int32)).join(lengths, on="admission")
    stays = (
        hours.filter(pl.col("stay").is_not_null())
        .group_by("stay", maintain_order=True)
        .agg(
            pl.col("admission").first(),
            pl.col("tick").first(),
            in_minute=pl.col("tick").first() * 60,
            out_minute=end_minute.last(),
            ended=pl.col("last").last(),
        )
        .join(admissions.select("admission", "died"), on="admission", maintain_order="left")
        .with_columns(
            died=pl.col("died") & pl.col("ended"),
            ordinal=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("admission"),
        )
        .drop("ended")
    )
    people, admissions = _calendar(hospital, people, admissions, stream(seed, hospital.name, "calendar"))
    return Population(
        hospital=hospital,
        seed=seed,
        patients=people,
        admissions=admissions,
        stays=stays,
        hours=hours.select("admission", "tick", "place", "level", "stay", "minutes"),
    )


def _calendar(
    hospital: Hospital, people: pl.DataFrame, admissions: pl.DataFrame, rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give everything a date: births, admissions, deaths after discharge."""
    first = np.datetime64(f"{hospital.first_year}-01-01T00:00", "us")
    arrival = first + rng.integers(0, 4 * 365 * 24 * 60, len(people)).astype("timedelta64[m]")
    gap = (1440 + rng.exponential(150 * 1440, len(admissions))).astype(np.int64)
    length = pl.col("minutes").cast(pl.Int64) + pl.col("gap")
    born = arrival - (people["age"].to_numpy() * 365.25 + rng.uniform(1, 364, len(people))).astype("timedelta64[D]")
    people = people.with_columns(arrival=pl.Series(arrival), born=pl.Series(born).cast(pl.Date))
    waited = (length.cum_sum() - length).over("patient")
    admissions = (
        admissions.with_columns(gap=pl.Series(gap))
        .join(people.select("patient", "arrival", "age"), on="patient", maintain_order="left")
        .with_columns(admitted=pl.col("arrival") + pl.duration(minutes=waited))
        .with_columns(
            discharged=pl.col("admitted") + pl.duration(minutes="minutes"),
            age=pl.col("age") + ((pl.col("admitted") - pl.col("arrival")).dt.total_days() / 365.25).cast(pl.Int64),
        )
        .drop("arrival", "start", "level", "gap")
    )
    last = admissions.group_by("patient", maintain_order=True).agg(pl.all().last())
    dies = rng.random(len(people)) < np.minimum(0.03 * 1.35 ** last["frailty"].to_numpy(), 0.6)
    days = pl.Series(rng.integers(1, 366, len(people)) * np.timedelta64(86_400_000_000, "us"))
    people = people.with_columns(
        died_later=pl.when(pl.Series(dies) & ~last["died"]).then((last["discharged"] + days).dt.date())
    )
    return people.drop("arrival"), admissions
