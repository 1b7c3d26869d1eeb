"""MIMIC-III v1.4: Beth Israel Deaconess Medical Center, Boston, 2001-2012, charted in CareVue, then in MetaVision.

When a fact counts as known:

- charting, outputs and CareVue inputs: at `storetime`, but never before `charttime` (nurses chart ahead);
- MetaVision infusions and procedures: what carers do, they know when they do it (`storetime` is that of the last
  change, in the median a minute after the end). The rate is known at the start, as is the
  amount of what is given at once; of what runs on, the amount is known at the end;
- laboratory results (no `storetime` here): `LAB_TURNAROUND` after the draw; cultures: `CULTURE_TURNAROUND` after;
- prescriptions have dates only: the end of that day;
- ICD, DRG and CPT codes: at hospital discharge, the later of `dischtime` and death.

Left out: rows marked as errors, rewritten orders, ends that lie before their start, and what is dated after the
patient's death (`sites.exports.mimic3_stays` says when that is, and who is a patient).

Units: `LAB//itemid//unit` keeps the unit as charted ("?F" included), `SUBJECT_FLUID_OUTPUT//227488//mL` (irrigant in)
is a positive number; concepts.yaml decides both by item id. "1.0 ET/Trach" and "<0.01" stand in `text_value`, as does
the NDC of a drug (not "0", which is missing).
"""

from collections.abc import Callable

import polars as pl

from sites.exports.export import BIDMC, LAB_TURNAROUND, Events, Export, Frames, code, end_of_day
from sites.exports.mimic3_stays import OLDEST, frames
from sites.exports.mimic3_tables import TABLES

CULTURE_TURNAROUND = pl.duration(days=7)
"""95 in 100 cultures of the MIMIC-IV demo, which has storage times, were stored within a week."""

Prepare = Callable[[pl.LazyFrame, Frames], pl.LazyFrame]


def _in_stays(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
    """Rows with `discharge` and `death` of their stay; both null, so that it is counted, where that is not kept."""
    stays = frames["stays"].lazy().select("hadm_id", "subject_id", "discharge", "death", kept=pl.lit(value=True))
    found = rows.join(stays, on=["hadm_id", "subject_id"], how="left").join(
        frames["everyone"].lazy().select("subject_id", "left_out"), on="subject_id", how="left"
    )
    return found.filter(~pl.col("left_out").fill_null(value=False))


def _at_discharge(column: str) -> Prepare:
    """Rows that have a code, with the `discharge` of their stay."""

    def prepare(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
        return _in_stays(rows.filter(pl.col(column).is_not_null()), frames)

    return prepare


def _in_life(dated: pl.Expr, *keep: pl.Expr) -> Prepare:
    """Rows where `keep` holds, but for those dated after the patient's death and of patients an option leaves out."""

    def prepare(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
        late = (dated > pl.col("known_death")).fill_null(value=False)
        out = pl.col("left_out").fill_null(value=False)
        return rows.filter(*keep).join(frames["everyone"].lazy(), on="subject_id", how="left").filter(~late & ~out)

    return prepare


def _moves(rows: pl.LazyFrame, frames: Frames) -> pl.LazyFrame:
    """Moves within kept stays; the move out of the hospital never stands before the discharge that it is part of."""
    out = pl.col("eventtype") == "discharge"
    left = pl.when(out).then(pl.max_horizontal("intime", "discharge")).otherwise("intime")
    return (
        _in_stays(rows, frames)
        .with_columns(intime=pl.when("kept").then(left))
        .filter(out | (pl.col("intime") <= pl.col("death")).fill_null(value=True))
    )


def _words(value: str, number: str) -> pl.Expr:
    """The text of a value that is more than its number."""
    repeats = pl.col(number).is_not_null() & pl.col(value).cast(pl.Float64, strict=False).is_not_null()
    return pl.when(~repeats).then(pl.col(value))


def _age() -> pl.Expr:
    """Completed years at admission."""
    born, now = pl.col("birth"), pl.col("admittime")
    before_birthday = now.dt.strftime("%m%d") < born.dt.strftime("%m%d")
    years = now.dt.year() - born.dt.year() - before_birthday.cast(pl.Int32)
    return years.clip(0, OLDEST).cast(pl.Float64)


_SEX = pl.when(pl.col("gender").is_in(["F", "M"])).then("gender")
_NO_ERROR = pl.col("error").fill_null(0) != 1
_VALID = pl.col("statusdescription").fill_null("") != "Rewritten"
_FORWARD = pl.col("endtime") >= pl.col("starttime")
_CHARTED, _STARTED = pl.col("charttime"), pl.col("starttime")
_STORED = pl.max_horizontal("storetime", "charttime")
_SAMPLED = pl.coalesce("charttime", end_of_day("chartdate"))
_SAMPLE_DAY = pl.col("chartdate").dt.truncate("1d")
_STOPPED = pl.col("stopped").is_in(["Stopped", "D/C'd"])
_KNOWN_AT_START = pl.col("rate").is_not_null() | (pl.col("endtime") - pl.col("starttime") <= pl.duration(minutes=1))
_GIVEN = pl.coalesce("rate", "amount")
_GIVEN_UNIT = pl.when(pl.col("rate").is_not_null()).then("rateuom").otherwise("amountuom")


def _known(column: str) -> pl.Expr:
    return pl.col(column).is_not_null()


def _where(condition: pl.Expr, event: pl.Expr) -> pl.Expr:
    """A code where the condition holds, otherwise no event."""
    return pl.when(condition).then(event)


_ADMITTED = (
    Events("persons", code("GENDER", _SEX), pl.lit(None), static=True),
    Events("persons", _where(_known("ethnicity"), code("RACE", "ethnicity")), pl.lit(None), static=True),
    Events("persons", _where(_known("birth"), pl.lit("MEDS_BIRTH")), pl.col("birth")),
    Events("stays", _where(_known("edregtime"), pl.lit("ED_REGISTRATION")), pl.col("edregtime")),
    Events("stays", code("HOSPITAL_ADMISSION", "admission_type", "admission_location"), pl.col("admittime")),
    Events("stays", _where(_known("birth"), pl.lit("AGE")), pl.col("admittime"), numeric=_age()),
    *(
        Events("stays", _where(_known(column), code(column.upper(), column)), pl.col("admittime"))
        for column in ("insurance", "language", "marital_status")
    ),
    Events("stays", _where(_known("edouttime"), pl.lit("ED_OUT")), pl.col("edouttime")),
    Events("transfers", code("TRANSFER_TO", "eventtype", "curr_careunit"), pl.col("intime"), prepare=_moves),
    Events(
        "services", code("SERVICE", "curr_service"), pl.col("transfertime"), prepare=_in_life(pl.col("transfertime"))
    ),
    Events("icu_stays", code("ICU_ADMISSION", "first_careunit"), pl.col("intime")),
)

_DISCHARGED = (
    Events("icu_stays", code("ICU_DISCHARGE", "last_careunit"), pl.col("outtime")),
    Events("persons", _where(_known("death"), pl.lit("MEDS_DEATH")), pl.col("death")),
    Events("stays", code("HOSPITAL_DISCHARGE", "discharge_location"), pl.col("discharge")),
    Events("stays", _where(pl.col("unknown"), pl.lit("OUTCOME_UNKNOWN")), pl.col("discharge")),
)

_CODED = (
    Events(
        "diagnoses_icd", code("DIAGNOSIS//ICD//9", "icd9_code"), pl.col("discharge"), prepare=_at_discharge("icd9_code")
    ),
    Events(
        "procedures_icd",
        code("PROCEDURE//ICD//9", "icd9_code"),
        pl.col("discharge"),
        prepare=_at_discharge("icd9_code"),
    ),
    Events(
        "drgcodes",
        code("DRG", pl.col("drg_type").str.strip_chars(), "drg_code"),
        pl.col("discharge"),
        prepare=_at_discharge("drg_code"),
    ),
    Events("cptevents", code("PROCEDURE//CPT", "cpt_cd"), pl.col("discharge"), prepare=_at_discharge("cpt_cd")),
)

_NDC = pl.when(~pl.col("ndc").str.contains("^0*$")).then("ndc")
_START_DAY, _END_DAY = pl.col("startdate").dt.truncate("1d"), pl.col("enddate").dt.truncate("1d")
_TREATMENT = (
    Events(
        "prescriptions",
        code("MEDICATION//START", "drug"),
        end_of_day("startdate"),
        text=_NDC,
        prepare=_in_life(_START_DAY, _known("drug")),
    ),
    Events(
        "prescriptions",
        code("MEDICATION//STOP", "drug"),
        end_of_day("enddate"),
        text=_NDC,
        prepare=_in_life(_END_DAY, _known("drug"), _END_DAY >= _START_DAY),
        name="prescriptions' ends",
    ),
    Events(
        "inputevents_cv",
        code("INFUSION_START", "itemid"),
        _STORED,
        numeric=_GIVEN,
        text=_GIVEN_UNIT,
        prepare=_in_life(_CHARTED, _GIVEN.is_not_null()),
    ),
    Events(
        "inputevents_cv",
        code("INFUSION_END", "itemid"),
        _STORED,
        prepare=_in_life(_CHARTED, _STOPPED),
        name="inputevents_cv' ends",
    ),
    Events(
        "inputevents_mv",
        code("INFUSION_START", "itemid"),
        _STARTED,
        numeric=pl.when(_KNOWN_AT_START).then(_GIVEN),
        text=pl.when(_KNOWN_AT_START).then(_GIVEN_UNIT),
        prepare=_in_life(_STARTED, _VALID),
    ),
    Events(
        "inputevents_mv",
        code("INFUSION_END", "itemid"),
        pl.col("endtime"),
        numeric=pl.col("amount"),
        text=pl.col("amountuom"),
        prepare=_in_life(pl.col("endtime"), _VALID, _FORWARD),
        name="inputevents_mv' ends",
    ),
    Events(
        "inputevents_mv",
        pl.lit("SUBJECT_WEIGHT_AT_INFUSION//KG"),
        _STARTED,
        numeric=pl.col("patientweight"),
        prepare=_in_life(_STARTED, _VALID, _known("patientweight")),
        name="weights",
    ),
    Events("procedureevents_mv", code("PROCEDURE//START", "itemid"), _STARTED, prepare=_in_life(_STARTED, _VALID)),
    Events(
        "procedureevents_mv",
        code("PROCEDURE//END", "itemid"),
        pl.col("endtime"),
        numeric=pl.col("value"),
        text=pl.col("valueuom"),
        prepare=_in_life(pl.col("endtime"), _VALID, _FORWARD),
        name="procedureevents_mv' ends",
    ),
)

_OBSERVED = (
    Events(
        "labevents",
        code("LAB", "itemid", "valueuom"),
        _CHARTED + LAB_TURNAROUND,
        numeric=pl.col("valuenum"),
        text=_words("value", "valuenum"),
        prepare=_in_life(_CHARTED),
    ),
    Events(
        "chartevents",
        code("LAB", "itemid", "valueuom"),
        _STORED,
        numeric=pl.col("valuenum"),
        text=_words("value", "valuenum"),
        prepare=_in_life(_CHARTED, _NO_ERROR),
    ),
    Events(
        "datetimeevents",
        code("DATETIME", "itemid"),
        _STORED,
        text=pl.col("value").dt.to_string("iso:strict"),
        prepare=_in_life(_CHARTED, _NO_ERROR),
    ),
    Events(
        "outputevents",
        code("SUBJECT_FLUID_OUTPUT", "itemid", "valueuom"),
        _STORED,
        numeric=pl.col("value"),
        prepare=_in_life(_CHARTED, pl.col("iserror").fill_null(0) != 1),
    ),
    Events("microbiologyevents", code("SPECIMEN", "spec_type_desc"), _SAMPLED, prepare=_in_life(_SAMPLE_DAY)),
    Events(
        "microbiologyevents",
        code("MICROBIOLOGY", "spec_type_desc", "org_name"),
        _SAMPLED + CULTURE_TURNAROUND,
        prepare=_in_life(_SAMPLE_DAY),
        name="cultures",
    ),
    Events(
        "microbiologyevents",
        code("SUSCEPTIBILITY", "org_name", "ab_name", "interpretation"),
        _SAMPLED + CULTURE_TURNAROUND,
        prepare=_in_life(_SAMPLE_DAY, _known("ab_name")),
        name="susceptibilities",
    ),
)

EXPORT = Export(
    kind="mimic3",
    title="MIMIC-III v1.4",
    tables=TABLES,
    frames=frames,
    events=(*_ADMITTED, *_OBSERVED, *_TREATMENT, *_DISCHARGED, *_CODED),
    groups=("unit", "dbsource"),
    options={
        "carevue": "only patients all of whose ICU stays were charted in CareVue (2001-2008)",
        "metavision": "only patients all of whose ICU stays were charted in MetaVision (2008-2012)",
    },
    source=lambda options: f"{BIDMC}-carevue" if "carevue" in options else BIDMC,
    concepts="mimic",
)
