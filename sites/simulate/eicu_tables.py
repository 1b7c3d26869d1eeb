"""The columns of the eICU-CRD v2.0 tables that simulated hospitals write, in their order."""

PATIENT = (
    *("patientunitstayid", "patienthealthsystemstayid", "gender", "age", "ethnicity", "hospitalid", "wardid"),
    *("apacheadmissiondx", "admissionheight", "hospitaladmittime24", "hospitaladmitoffset", "hospitaladmitsource"),
    *("hospitaldischargeyear", "hospitaldischargetime24", "hospitaldischargeoffset", "hospitaldischargelocation"),
    *("hospitaldischargestatus", "unittype", "unitadmittime24", "unitadmitsource", "unitvisitnumber", "unitstaytype"),
    *("admissionweight", "dischargeweight", "unitdischargetime24", "unitdischargeoffset", "unitdischargelocation"),
    *("unitdischargestatus", "uniquepid"),
)
PERIODIC = (
    *("vitalperiodicid", "patientunitstayid", "observationoffset", "temperature", "sao2", "heartrate", "respiration"),
    *("cvp", "etco2", "systemicsystolic", "systemicdiastolic", "systemicmean", "pasystolic", "padiastolic", "pamean"),
    *("st1", "st2", "st3", "icp"),
)
APERIODIC = (
    *("vitalaperiodicid", "patientunitstayid", "observationoffset", "noninvasivesystolic", "noninvasivediastolic"),
    *("noninvasivemean", "paop", "cardiacoutput", "cardiacinput", "svr", "svri", "pvr", "pvri"),
)
LAB = (
    *("labid", "patientunitstayid", "labresultoffset", "labtypeid", "labname", "labresult", "labresulttext"),
    *("labmeasurenamesystem", "labmeasurenameinterface", "labresultrevisedoffset"),
)
NURSE = (
    *("nursingchartid", "patientunitstayid", "nursingchartoffset", "nursingchartentryoffset"),
    *("nursingchartcelltypecat", "nursingchartcelltypevallabel", "nursingchartcelltypevalname", "nursingchartvalue"),
)
APS = (
    *(
        "apacheapsvarid",
        "patientunitstayid",
        "intubated",
        "vent",
        "dialysis",
        "eyes",
        "motor",
        "verbal",
        "meds",
        "urine",
    ),
    *("wbc", "temperature", "respiratoryrate", "sodium", "heartrate", "meanbp", "ph", "hematocrit", "creatinine"),
    *("albumin", "pao2", "pco2", "bun", "glucose", "bilirubin", "fio2"),
)
RESULT = (
    *("apachepatientresultsid", "patientunitstayid", "physicianspeciality", "physicianinterventioncategory"),
    *("acutephysiologyscore", "apachescore", "apacheversion", "predictedicumortality", "actualicumortality"),
    *("predictediculos", "actualiculos", "predictedhospitalmortality", "actualhospitalmortality"),
    *("predictedhospitallos", "actualhospitallos", "preopmi", "preopcardiaccath", "ptcawithin24h", "unabridgedunitlos"),
    *("unabridgedhosplos", "actualventdays", "predventdays", "unabridgedactualventdays"),
)
MEDICATION = (
    *("medicationid", "patientunitstayid", "drugorderoffset", "drugstartoffset", "drugivadmixture"),
    *("drugordercancelled", "drugname", "drughiclseqno", "dosage", "routeadmin", "frequency", "loadingdose", "prn"),
    *("drugstopoffset", "gtc"),
)
INTAKE = (
    *("intakeoutputid", "patientunitstayid", "intakeoutputoffset", "intaketotal", "outputtotal", "dialysistotal"),
    *("nettotal", "intakeoutputentryoffset", "cellpath", "celllabel", "cellvaluenumeric", "cellvaluetext"),
)
RESPIRATORY = (
    *("respcareid", "patientunitstayid", "respcarestatusoffset", "currenthistoryseqnum", "airwaytype", "airwaysize"),
    *(
        "airwayposition",
        "cuffpressure",
        "ventstartoffset",
        "ventendoffset",
        "priorventstartoffset",
        "priorventendoffset",
    ),
)
INFUSION = (
    *("infusiondrugid", "patientunitstayid", "infusionoffset", "drugname", "drugrate", "infusionrate", "drugamount"),
    *("volumeoffluid", "patientweight"),
)
