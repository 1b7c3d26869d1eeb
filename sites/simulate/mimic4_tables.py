"""The columns of the MIMIC-IV v2.2 tables that simulated hospitals write, in their order."""

ADMISSIONS = (
    *("subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "admit_provider_id"),
    *("admission_location", "discharge_location", "insurance", "language", "marital_status", "race", "edregtime"),
    *("edouttime", "hospital_expire_flag"),
)
LABEVENTS = (
    *("labevent_id", "subject_id", "hadm_id", "specimen_id", "itemid", "order_provider_id", "charttime", "storetime"),
    *("value", "valuenum", "valueuom", "ref_range_lower", "ref_range_upper", "flag", "priority", "comments"),
)
CHARTEVENTS = (
    *("subject_id", "hadm_id", "stay_id", "caregiver_id", "charttime", "storetime", "itemid", "value", "valuenum"),
    *("valueuom", "warning"),
)
INPUTEVENTS = (
    *("subject_id", "hadm_id", "stay_id", "caregiver_id", "starttime", "endtime", "storetime", "itemid", "amount"),
    *("amountuom", "rate", "rateuom", "orderid", "linkorderid", "ordercategoryname", "secondaryordercategoryname"),
    *("ordercomponenttypedescription", "ordercategorydescription", "patientweight", "totalamount", "totalamountuom"),
    *("isopenbag", "continueinnextdept", "statusdescription", "originalamount", "originalrate"),
)
PROCEDUREEVENTS = (
    *("subject_id", "hadm_id", "stay_id", "caregiver_id", "starttime", "endtime", "storetime", "itemid", "value"),
    *("valueuom", "location", "locationcategory", "orderid", "linkorderid", "ordercategoryname"),
    *("ordercategorydescription", "patientweight", "isopenbag", "continueinnextdept", "statusdescription"),
    *("originalamount", "originalrate"),
)
PRESCRIPTIONS = (
    *("subject_id", "hadm_id", "pharmacy_id", "poe_id", "poe_seq", "order_provider_id", "starttime", "stoptime"),
    *("drug_type", "drug", "formulary_drug_cd", "gsn", "ndc", "prod_strength", "form_rx", "dose_val_rx"),
    *("dose_unit_rx", "form_val_disp", "form_unit_disp", "doses_per_24_hrs", "route"),
)
