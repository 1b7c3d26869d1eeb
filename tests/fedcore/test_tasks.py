"""Task files: names, paths, open predicates, and sentences for what cannot be read."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from fedcore.task import CannotServe, extractor, load_task, tasks
from sites.errors import InputError

ACES_FILE = """
predicates:
  admission: ???
  discharge:
    code: ???
trigger: admission
windows:
  target:
    start: input.end
    end: start -> discharge
    start_inclusive: False
    end_inclusive: True
    label: discharge
  input: {start: NULL, end: trigger, start_inclusive: True, end_inclusive: True, index_timestamp: end}
"""


def write(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


MORTALITY = [name for name in tasks() if name.startswith("mortality/")]


def test_the_four_mortality_tasks_are_there_and_say_that_they_have_no_age_limit():
    assert MORTALITY == [
        "mortality/in_hospital/admission_24h",
        "mortality/in_hospital/first_24h",
        "mortality/in_hospital/first_48h",
        "mortality/in_icu/first_24h",
    ]
    for name in MORTALITY:
        task = load_task(name)
        assert "No age limit" in task.description
        assert task.window_hours == (48 if "48h" in name else 24)
        assert task.label == "death"


def test_every_task_reads_for_every_export_and_ends_at_its_whole_definition():
    for name in tasks():
        kind = "uci_heart" if name.startswith("heart/") else "mimic4"
        *_, last = load_task(name).steps(kind)
        assert extractor(last.definition) == extractor(load_task(name).filled(kind))


def test_heart_disease_is_known_to_uci_heart_alone():
    with pytest.raises(CannotServe, match="predicate 'heart_disease' is left open"):
        load_task("heart/disease").filled("mimic4")


def test_in_icu_mortality_is_meds_devs_to_the_letter():
    config = extractor(load_task("mortality/in_icu/first_24h").filled("mimic4"))
    assert config.trigger.predicate == "icu_admission"
    assert config.predicates["icu_admission"].code == {"regex": "^ICU_ADMISSION//"}
    assert config.predicates["death"].code == {"regex": "MEDS_DEATH.*"}
    assert config.predicates["discharge_or_death"].expr == "or(icu_discharge, death)"
    shape = {
        name: (w.start, w.end, w.start_inclusive, w.end_inclusive, w.label, w.index_timestamp, dict(w.has))
        for name, w in config.windows.items()
    }
    never = (None, 0)
    assert shape == {
        "input": (None, "trigger + 24h", True, True, None, "end", {}),
        "gap": ("trigger", "start + 48h", False, True, None, None,
                {"icu_admission": never, "discharge_or_death": never}),
        "target": ("gap.end", "start -> discharge_or_death", False, True, "death", None, {}),
    }  # fmt: skip


def test_a_file_runs_by_its_path_with_predicates_of_the_users(tmp_path):
    own = write(tmp_path, "predicates: {admission: {code: IN}, discharge: {code: OUT}}", "predicates.yaml")
    task = load_task(write(tmp_path, ACES_FILE), own)
    assert list(task.windows) == ["input", "target"]  # the referenced one first
    predicates = extractor(task.filled("anything")).predicates
    assert {name: p.code for name, p in predicates.items()} == {
        "admission": "IN", "discharge": "OUT",
    }  # fmt: skip
    assert task.sha256 != load_task(task.path).sha256


def test_a_predicate_that_stays_open_means_that_the_site_cannot_serve_the_task(tmp_path):
    with pytest.raises(CannotServe, match=r"own\.yaml: predicate 'admission' is left open"):
        load_task(write(tmp_path, ACES_FILE)).filled("mimic4")


def test_physionet_2012_serves_first_48h_alone():
    assert load_task("mortality/in_hospital/first_48h").filled("physionet2012")
    for name in set(tasks()) - {"mortality/in_hospital/first_48h"}:
        with pytest.raises(CannotServe, match=r"outcome has no time.*it serves mortality/in_hospital/first_48h"):
            load_task(name).filled("physionet2012")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "not YAML"),
        ("just words", "found no keys"),
        ("predicates: {a: {code: A}}\ntrigger: a", "'windows' is missing"),
        (ACES_FILE.replace("-> discharge", "-> nothing"), "ACES cannot read it.*nothing"),
        (ACES_FILE.replace("    label: discharge\n", ""), "no window has 'label'"),
        (ACES_FILE.replace(", index_timestamp: end", ""), "no window has 'index_timestamp'"),
        (ACES_FILE + "  more: {beginning: NULL}\n", "ACES cannot read it"),
    ],
)
def test_a_file_that_is_no_task_gets_a_sentence(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        load_task(write(tmp_path, text))
    assert "own.yaml" in str(error.value)


def test_an_unknown_name_gets_the_names_there_are():
    with pytest.raises(InputError, match="expected one of heart/disease, mortality/in_hospital/admission_24h"):
        load_task("mortality/next_week")


def test_each_step_adds_demands_and_takes_none_back():
    for name in MORTALITY:
        steps = list(load_task(name).steps("mimic4"))
        for before, after in pairwise(steps):
            for window, content in before.definition["windows"].items():
                kept = after.definition["windows"][window]
                assert {k: v for k, v in kept.items() if k != "has"} == {k: v for k, v in content.items() if k != "has"}
                assert set(content.get("has", {})) <= set(kept.get("has", {}))
            assert json.dumps(before.definition) != json.dumps(after.definition)
