"""People, stays and deaths of MIMIC-IV: everything that is decided once for each stay.

Rules, each counted in a warning where it changes something:

- The discharge of those who died is max(dischtime, deathtime): `dischtime` is often midnight of the day of death.
- A stay's outcome is unknown where its tables contradict each other: `hospital_expire_flag` null; flag 0 but a
  `deathtime` or discharge location DIED; a death before the admission; a stay that goes on after the patient's death
  (organ donors are admitted anew). Such a stay says OUTCOME_UNKNOWN at its discharge, and makes no death.
- A patient dies once: at the earliest in-hospital death (`deathtime`, else `dischtime`). Without one, `dod` is a death
  outside, at the end of that day, and after the last discharge.
- A stay that overlaps the next one ends where the next begins.
- An ICU stay ends at the latest with its hospital stay: `outtime` is when the bed was freed (22 of the demo's 140 lie
  behind the discharge), and a patient who has left or died is in no ICU.
- Ages above 89 are 91 in the tables and count as 90.
"""

import polars as pl

from sites.exports.export import Tables, end_of_day

GROUPS = ("unit", "admission_type", "anchor_year_group")
OLDEST = 90


def frames(tables: Tables) -> dict[str, pl.DataFrame]:
    """subjects, people, hospital_stays, icu_stays and deaths, as `Export.frames` says."""
    patients, admissions, icu = (tables.read(name) for name in ("patients", "admissions", "icustays"))
    known = patients["subject_id"].implode()
    for name, frame in (("admissions", admissions), ("icustays", icu)):
        stray = frame.filter(~pl.col("subject_id").is_in(known)).height
        if stray:
            tables.warn(f"{name}: {stray} rows left out, whose patient is not in patients")
    admissions = admissions.filter(pl.col("subject_id").is_in(known))
    icu = icu.filter(pl.col("subject_id").is_in(known))
    stays = _hospital_stays(tables, admissions, patients)
    deaths = _deaths(tables, stays, patients)
    stays = _after_death(tables, stays, deaths)
    icu_stays = _icu_stays(tables, icu, stays)
    first_stay = stays.sort("subject_id", "admittime", "hadm_id").group_by("subject_id", maintain_order=True).first()
    first_icu = icu_stays.sort("subject_id", "intime", "stay_id").group_by("subject_id", maintain_order=True).first()
    subjects = (
        patients.select("subject_id", pl.col("subject_id").alias("patient_id"), "anchor_year_group")
        .join(first_icu.select("subject_id", unit="first_careunit"), on="subject_id", how="left")
        .join(first_stay.select("subject_id", "admission_type"), on="subject_id", how="left")
    )
    race = stays.filter(pl.col("race").is_not_null()).sort("subject_id", "admittime", "hadm_id")
    people = patients.join(
        race.group_by("subject_id", maintain_order=True).first().select("subject_id", "race"),
        on="subject_id",
        how="left",
    ).select(
        "subject_id",
        "gender",
        "race",
        # as in the published MEDS: only the year of birth is known
        pl.date(pl.col("anchor_year") - pl.col("anchor_age"), 1, 1).cast(pl.Datetime("us")).alias("birth"),
    )
    return {"subjects": subjects, "people": people, "hospital_stays": stays, "icu_stays": icu_stays, "deaths": deaths}


def _hospital_stays(tables: Tables, admissions: pl.DataFrame, patients: pl.DataFrame) -> pl.DataFrame:
    """admissions with `discharge`, `died` (at `death`), `outcome_unknown` and `age`."""
    untimed = admissions.filter(pl.col("admittime").is_null() | pl.col("dischtime").is_null()).height
    if untimed:
        tables.warn(f"admissions: {untimed} rows left out, which have no admittime or no dischtime")
    flag = pl.col("hospital_expire_flag")
    says_died = pl.col("deathtime").is_not_null() | (pl.col("discharge_location") == "DIED").fill_null(value=False)
    before = (pl.col("deathtime") < pl.col("admittime")).fill_null(value=False)
    stays = (
        admissions.filter(pl.col("admittime").is_not_null() & pl.col("dischtime").is_not_null())
        .with_columns(
            outcome_unknown=(flag.is_null() | ((flag == 0) & says_died) | ~flag.is_in([0, 1]) | before),
            backwards=pl.col("dischtime") < pl.col("admittime"),
        )
        .with_columns(pl.col("outcome_unknown").fill_null(value=True))
        .with_columns(died=(flag == 1).fill_null(value=False) & ~pl.col("outcome_unknown"))
        .with_columns(discharge=pl.max_horizontal("admittime", "dischtime", "deathtime"))
        .with_columns(death=pl.when("died").then(pl.coalesce("deathtime", "discharge")))
        .sort("subject_id", "admittime", "hadm_id")
    )
    next_admission = pl.col("admittime").shift(-1).over("subject_id")
    overlaps = (pl.col("discharge") > next_admission).fill_null(value=False) & ~pl.col("died")
    stays = stays.with_columns(overlaps=overlaps).with_columns(
        discharge=pl.when("overlaps").then(next_admission).otherwise("discharge")
    )
    for what, sentence in (
        (stays.filter(before).height, "hospital stays whose death lies before the admission; their outcome is unknown"),
        (stays.filter("backwards").height, "hospital stays whose discharge lies before the admission; it is moved"),
        (stays.filter("overlaps").height, "hospital stays end where the next one begins, because they overlap"),
        (
            stays.filter(pl.col("outcome_unknown") & ~before).height,
            "hospital stays with contradictory hospital_expire_flag, deathtime and discharge_location; "
            "their outcome is unknown",
        ),
    ):
        if what:
            tables.warn(f"admissions: {what} {sentence}")
    age = pl.col("anchor_age") + pl.col("admittime").dt.year() - pl.col("anchor_year")
    return stays.join(patients.select("subject_id", "anchor_age", "anchor_year"), on="subject_id", how="left").select(
        "subject_id",
        "hadm_id",
        "admittime",
        "discharge",
        "death",
        "died",
        "outcome_unknown",
        pl.when(pl.col("anchor_age") >= OLDEST).then(OLDEST).otherwise(age.clip(0, OLDEST)).alias("age"),
        "admission_type",
        "admission_location",
        "discharge_location",
        "insurance",
        "language",
        "marital_status",
        "race",
        "edregtime",
        "edouttime",
    )


def _deaths(tables: Tables, stays: pl.DataFrame, patients: pl.DataFrame) -> pl.DataFrame:
    """subject_id and `death`, one row for each patient who is known to have died."""
    inside = stays.filter("died").group_by("subject_id").agg(pl.col("death").min().alias("inside"))
    last = stays.group_by("subject_id").agg(pl.col("discharge").max().alias("last"))
    deaths = (
        patients.select("subject_id", "dod")
        .join(inside, on="subject_id", how="left")
        .join(last, on="subject_id", how="left")
        .filter(pl.col("inside").is_not_null() | pl.col("dod").is_not_null())
        .with_columns(outside=end_of_day("dod"))
    )
    early = deaths.filter(pl.col("inside").is_null() & (pl.col("outside") <= pl.col("last"))).height
    if early:
        tables.warn(
            f"patients: {early} dod lie before the last discharge alive; these deaths stand one second behind it"
        )
    after = pl.max_horizontal("outside", pl.col("last") + pl.duration(seconds=1))
    return deaths.select("subject_id", death=pl.coalesce("inside", after)).sort("subject_id")


def _after_death(tables: Tables, stays: pl.DataFrame, deaths: pl.DataFrame) -> pl.DataFrame:
    """Mark the stays that go on after the patient's death."""
    first = deaths.select("subject_id", pl.col("death").alias("dead_at"))
    marked = stays.join(first, on="subject_id", how="left", maintain_order="left").with_columns(
        late=(pl.col("discharge") > pl.col("dead_at")).fill_null(value=False)
        & ((pl.col("death") != pl.col("dead_at")).fill_null(value=True))
    )
    late = marked.filter("late").height
    if late:
        tables.warn(
            f"admissions: {late} hospital stays go on after the patient's death (organ donors); "
            "their outcome is unknown"
        )
    return marked.with_columns(
        outcome_unknown=pl.col("outcome_unknown") | pl.col("late"),
        died=pl.col("died") & ~pl.col("late"),
        death=pl.when(~pl.col("late")).then("death"),
    ).drop("late", "dead_at")


def _icu_stays(tables: Tables, icu: pl.DataFrame, stays: pl.DataFrame) -> pl.DataFrame:
    """icustays whose end is clipped to the hospital stay's."""
    untimed = icu["intime"].null_count()
    if untimed:
        tables.warn(f"icustays: {untimed} rows left out, which have no intime")
    joined = icu.filter(pl.col("intime").is_not_null()).join(
        stays.select("hadm_id", "discharge"), on="hadm_id", how="left"
    )
    clipped = joined.filter(pl.col("outtime") > pl.col("discharge")).height
    if clipped:
        tables.warn(f"icustays: {clipped} stays end after the hospital stay (or death) and are ended with it")
    end = pl.coalesce(pl.min_horizontal("outtime", "discharge"), "intime")
    return joined.with_columns(outtime=pl.max_horizontal("intime", end)).drop("discharge")
