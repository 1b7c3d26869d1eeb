"""What stands beside the shards of a dataset: MEDS's own metadata, the subjects, the manifest."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from meds.schema import CodeMetadataSchema, SubjectSplitSchema

from sites.dataset import Manifest
from sites.exports.export import Frames
from sites.shards import Codes
from sites.source import Source, concepts_key, data_kind, patient_source
from sites.splits import meds_split


def write_metadata(
    source: Source,
    dataset: Path,
    frames: Frames,
    subjects: pl.DataFrame,
    *,
    codes: Codes,
    n_codes: npt.NDArray[np.int64],
    warnings: Sequence[str],
) -> None:
    """Write `metadata/` of a dataset whose shards are written.

    `dataset.json` names no time of creation: the same export gives the same bytes whenever it is read.

    Args:
        source: What it was made from.
        dataset: Its folder.
        frames: The export's small tables.
        subjects: subject_id, patient_id and groups, sorted.
        codes: Every code that a table gave.
        n_codes: int64 [codes], how many events of each were written.
        warnings: For the manifest.
    """
    export, metadata = source.export, dataset / "metadata"
    options = source.spec.reading_options()
    used = pl.DataFrame({"code": codes.names, "n_events": n_codes}).filter(pl.col("n_events") > 0)
    code_table = pa.table(
        {
            "code": used["code"].to_arrow().cast(pa.string()),
            "description": pa.nulls(len(used), pa.string()),
            "parent_codes": pa.nulls(len(used), pa.list_(pa.string())),
            "n_events": used["n_events"].to_arrow(),
        }
    )
    CodeMetadataSchema.validate(code_table)
    pq.write_table(code_table, metadata / "codes.parquet")
    splits = pa.table(
        {
            "subject_id": subjects["subject_id"].to_arrow(),
            "split": pa.array(meds_split(subjects["patient_id"]).tolist(), pa.string()),
        }
    )
    SubjectSplitSchema.validate(splits)
    pq.write_table(splits, metadata / "subject_splits.parquet")
    pq.write_table(subjects.to_arrow(), metadata / "subjects.parquet")
    told = {
        "dataset_name": export.title,
        "dataset_version": source.sha256[:16],
        "etl_name": "fedward",
        "etl_version": version("fedward"),
        "meds_version": version("meds"),
    }
    (metadata / "dataset.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if source.truth is not None:
        (dataset / "truth").mkdir()
        shutil.copyfile(source.truth, dataset / "truth" / source.truth.name)
    manifest = Manifest(
        kind=source.spec.kind,
        title=export.title,
        source=patient_source(export, source.spec, frames) or f"{source.spec.kind}:{source.sha256[:16]}",
        part=export.part(options, frames),
        options=options,
        data_kind=data_kind(source.data_kind, frames),
        source_sha256=source.sha256,
        content_sha256=_content_sha256(dataset),
        groups=export.groups,
        concepts=concepts_key(export, source.spec, frames),
        n_subjects=len(subjects),
        n_patients=subjects["patient_id"].n_unique(),
        n_events=int(n_codes.sum()),
        warnings=tuple(warnings),
        truth=None if source.truth is None else f"truth/{source.truth.name}",
    )
    (metadata / "fedward.json").write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _content_sha256(dataset: Path) -> str:
    digest = hashlib.sha256()
    for path in [*sorted((dataset / "data").glob("*.parquet")), dataset / "metadata" / "subjects.parquet"]:
        with path.open("rb") as stream:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
