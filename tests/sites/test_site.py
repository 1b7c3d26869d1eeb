"""Sites: how they are written, divided, kept apart, remembered and forgotten."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import pytest

from sites.errors import InputError
from sites.ingest import ingest
from sites.site import forget, open_sites, register, registered, slugify
from sites.spec import SiteSpec

MakeExport = Callable[..., Path]


def make(path: Path, name: str = "a", options: str = "") -> SiteSpec:
    return SiteSpec.parse(f"{name}=mimic4{options}:{path}")


def test_a_site_is_written_name_kind_options_path() -> None:
    spec = SiteSpec.parse("boston.2=mimic4,by=unit,demo:/data/a:b")
    assert (spec.name, spec.kind, dict(spec.options)) == ("boston.2", "mimic4", {"by": "unit", "demo": ""})
    assert spec.path == Path("/data/a:b")
    assert SiteSpec.parse(str(spec)) == spec
    assert SiteSpec.parse("a=mimic4:~/x").path == Path.home() / "x"
    assert SiteSpec.parse("eicu,by=region:/x", named=False).name == "eicu"


@pytest.mark.parametrize(
    "text", ["", "a", "a=mimic4", "a=mimic4:", "mimic4:/x", "a b=mimic4:/x", "=mimic4:/x", "a=:/x", "a=mimic4,:/x",
             "a=mimic4,by=unit,by=race:/x", "mimic4,by=unit:/x"]
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        SiteSpec.parse(text)


def test_by_makes_one_site_of_each_group_and_nulls_are_one_too(mimic4_export: MakeExport, home: Path) -> None:
    sites = open_sites([make(mimic4_export(), options=",by=unit")], home=home)
    assert {site.name: site.subjects["patient_id"].to_list() for site in sites} == {
        "a-micu": [1],
        "a-sicu": [2],
        "a-unknown": [3],
    }
    assert [site.whole for site in sites] == [False, False, False]
    events = sites[0].scan().collect()
    assert set(events["subject_id"]) == {1}


def test_without_by_a_site_is_its_dataset(mimic4_export: MakeExport, home: Path) -> None:
    (site,) = open_sites([make(mimic4_export())], home=home)
    assert site.whole
    assert site.scan().collect().equals(site.dataset.scan().collect())


def test_groups_whose_names_would_clash_are_refused(mimic4_export: MakeExport, home: Path) -> None:
    stays = """subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime
1,10,100,Unit (A),x,2150-01-02 10:00:00,2150-01-04 10:00:00
2,20,200,unit a,x,2151-03-01 11:00:00,2151-03-03 03:00:00
"""
    with pytest.raises(InputError, match="the same name 'unit-a'"):
        open_sites([make(mimic4_export({"icu/icustays": stays}), options=",by=unit")], home=home)
    assert slugify("  ") == "blank"


def test_one_name_stands_once(mimic4_export: MakeExport, home: Path) -> None:
    shifted = mimic4_export({"hosp/services": "subject_id,transfertime,curr_service\n1,2150-01-01,MED\n"}, name="other")
    simulate(shifted, "elsewhere")
    with pytest.raises(InputError, match="two sites named a"):
        open_sites([make(mimic4_export())], [make(shifted)], home=home)


def simulate(export: Path, source: str) -> None:
    (export / "SIMULATED.json").write_text(f'{{"hospital": "x", "source": "{source}"}}')


@pytest.mark.parametrize("external", [False, True])
def test_one_hospital_twice_is_refused_also_as_external(mimic4_export: MakeExport, home: Path, external: bool) -> None:
    first = make(mimic4_export(), "a")
    other = mimic4_export({"hosp/services": "subject_id,transfertime,curr_service\n1,2150-01-01,MED\n"}, name="other")
    second = make(other, "b")
    with pytest.raises(InputError, match="one patient source"):
        open_sites([first] if external else [first, second], [second] if external else [], home=home)
    simulate(other, "elsewhere")
    assert len(open_sites([first, make(other, "b")], home=home)) == 2


def test_the_same_data_under_two_names_is_refused(mimic4_export: MakeExport, home: Path) -> None:
    export = mimic4_export()
    with pytest.raises(InputError, match="same data"):
        open_sites([make(export, "a"), make(export, "b")], home=home)


def test_meds_made_from_an_export_overlaps_with_it(mimic4_export: MakeExport, home: Path) -> None:
    export = make(mimic4_export(), "a")
    root = ingest(export, home).root
    with pytest.raises(InputError, match="one patient source"):
        open_sites([export, SiteSpec.parse(f"b=meds:{root}")], home=home)


@pytest.mark.real
def test_carevue_stands_beside_mimic4_with_a_warning(real_data: Path, home: Path) -> None:
    told: list[str] = []
    carevue = SiteSpec.parse(f"old=mimic3,carevue:{real_data / 'mimiciii_demo_1.4'}")
    new = make(real_data / "mimiciv_demo_2.2", "new")
    assert len(open_sites([carevue, new], home=home, warn=told.append)) == 2
    assert "a few patients may stand in both" in told[0]
    whole = SiteSpec.parse(f"old=mimic3:{real_data / 'mimiciii_demo_1.4'}")
    for pair in ([whole, new], [carevue, SiteSpec.parse(f"all=mimic3:{real_data / 'mimiciii_demo_1.4'}")]):
        with pytest.raises(InputError, match="one patient source"):
            open_sites(pair, home=home)


PART_MODULE = """
import polars as pl
from sites.exports.export import Events, Export, Table
EXPORT = Export(
    kind="{module}", title="Parts",
    tables=(Table("rows", {{"subject_id": pl.Int64, "time": pl.Datetime("us")}}, required=True),),
    frames=lambda tables: {{"subjects": tables.read("rows").select("subject_id", patient_id="subject_id").unique()}},
    events=(Events("rows", pl.lit("SEEN"), pl.col("time")),),
    options={{"part": "which part"}},
    source=lambda options: "challenge",
    part=lambda options, frames: options.get("part", ""),
)
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, list[int]]], list[SiteSpec]]:
    """Sites of one source, each a declared part: part name to patient ids."""
    package = tmp_path / "modules" / "partlab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "challenge.py").write_text(PART_MODULE.format(module="partlab.challenge"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))

    def write(ids: Mapping[str, list[int]]) -> list[SiteSpec]:
        specs = []
        for part, patients in ids.items():
            folder = tmp_path / f"set{part}"
            folder.mkdir()
            rows = "".join(f"{patient},2150-01-01 10:00:00\n" for patient in patients)
            (folder / "rows.csv").write_text("subject_id,time\n" + rows)
            option = f",part={part}" if part != "whole" else ""
            specs.append(SiteSpec.parse(f"s{part}=partlab.challenge{option}:{folder}"))
        return specs

    return write


def test_declared_parts_may_stand_together_when_their_ids_are_disjoint(
    parts: Callable[[Mapping[str, list[int]]], list[SiteSpec]], home: Path
) -> None:
    assert len(open_sites(parts({"a": [1, 2], "b": [3, 4]}), home=home)) == 2


def test_declared_parts_that_share_a_patient_are_refused(
    parts: Callable[[Mapping[str, list[int]]], list[SiteSpec]], home: Path
) -> None:
    with pytest.raises(InputError, match="1 patient ids stand in both"):
        open_sites(parts({"a": [1, 2], "b": [2, 4]}), home=home)


def test_a_part_does_not_stand_beside_the_whole(
    parts: Callable[[Mapping[str, list[int]]], list[SiteSpec]], home: Path
) -> None:
    with pytest.raises(InputError, match="one patient source"):
        open_sites(parts({"a": [1, 2], "whole": [3, 4]}), home=home)


def test_parts_divide_at_random_and_skew_by_group(
    parts: Callable[[Mapping[str, list[int]]], list[SiteSpec]], home: Path
) -> None:
    (spec,) = parts({"whole": list(range(400))})
    even = open_sites([SiteSpec.parse(f"s=partlab.challenge,parts=4:{spec.path}")], home=home)
    assert [site.name for site in even] == ["s-part1", "s-part2", "s-part3", "s-part4"]
    assert all(60 < len(site.subjects) < 140 for site in even)
    together = pl.concat([site.subjects for site in even])
    assert together["subject_id"].sort().to_list() == list(range(400))
    skewed = open_sites([SiteSpec.parse(f"s=partlab.challenge,parts=4,skew=quantity@0.1:{spec.path}")], home=home)
    assert max(len(site.subjects) for site in skewed) > 200
    assert sum(len(site.subjects) for site in skewed) == 400


def test_skew_by_group_shares_each_group_unevenly(mimic4_export: MakeExport, home: Path) -> None:
    sites = open_sites([make(mimic4_export(), options=",parts=2,skew=unit@0.5")], home=home)
    assert sum(len(site.subjects) for site in sites) == 3


@pytest.mark.parametrize("options", [",parts=0", ",parts=x", ",skew=quantity-1", ",by=unit,parts=2"])
def test_impossible_divisions_are_refused(mimic4_export: MakeExport, home: Path, options: str) -> None:
    with pytest.raises(InputError, match="parts="):
        open_sites([make(mimic4_export(), options=options)], home=home)


def test_registered_sites_are_remembered_by_absolute_path(
    mimic4_export: MakeExport, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = mimic4_export()
    home.mkdir()
    monkeypatch.chdir(export.parent)
    register(SiteSpec.parse("ward=mimic4,by=unit:mimic4"), home)
    assert registered(home) == {"ward": make(export, "ward", ",by=unit")}


def test_forgetting_a_site_deletes_its_datasets_even_of_a_changed_or_vanished_export(
    mimic4_export: MakeExport, home: Path
) -> None:
    export = mimic4_export()
    first = ingest(make(export, "ward"), home).root
    (export / "hosp" / "services.csv").write_text("subject_id,transfertime,curr_service\n1,2150-01-01,MED\n")
    second = ingest(make(export, "ward"), home).root
    register(make(export, "ward"), home)
    export.rename(export.with_name("moved"))
    assert forget("ward", home) == sorted([first, second])
    assert registered(home) == {}
    assert list((home / "datasets").iterdir()) == []


def test_a_dataset_that_another_export_shares_stays(mimic4_export: MakeExport, home: Path) -> None:
    first, copy = mimic4_export(), mimic4_export(name="copy")
    root = ingest(make(first, "a"), home).root
    assert ingest(make(copy, "b"), home).root == root
    register(make(first, "a"), home)
    assert forget("a", home) == []
    assert root.is_dir()


def test_forgetting_an_unknown_site_names_the_known(home: Path) -> None:
    home.mkdir()
    with pytest.raises(InputError, match="no registered site 'x'"):
        forget("x", home)
