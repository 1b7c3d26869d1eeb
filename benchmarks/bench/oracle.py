"""What nobody can beat: the true risks of simulated patients, scored as if they were a model's predictions."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from bench import account
from bench.code import representation_of
from bench.policies import Policies
from bench.training import Predicted, Trained, keep, prepared_sites, trained_folder
from fedcore.fingerprint import fingerprint
from fedcore.rounds import RoundReport
from fedcore.samples import SiteSamples
from fedcore.task import Task
from leaderboard.measured import Training
from leaderboard.record import Spec
from sites.dataset import Dataset
from sites.errors import InputError
from sites.site import Site


def predict(
    spec: Spec,
    task: Task,
    sites: Sequence[Site],
    on_round: Callable[[RoundReport], None],
    *,
    reuse: bool,
    engine: str,
    policies: Policies,
) -> Predicted:
    """Look up the true risk of every sample; there are no rounds, and looking up is as quick as reusing.

    Raises:
        InputError: a site is not simulated, no site can serve the task, or the simulation knows no truth for it.
    """
    served, skipped = prepared_sites(spec, task, sites, representation_of(spec.model.name))
    datasets = {site.name: site.dataset for site in sites}
    samples = [one.samples for one in served]
    risks = {one.site: true_risk(datasets[one.site], task.name, one) for one in samples}
    trained = Trained(
        data=account.data(served, sites, skipped),
        training=Training(selection="the truth of the simulation; nothing is trained"),
        releases=(),
        bytes_up=0,
        bytes_down=0,
        round_s=(),
    )
    folder = trained_folder(spec, fingerprint("bench.oracle"))
    if not (folder / "trained.json").is_file():
        keep(folder, trained, samples, risks)
    return Predicted(trained, folder / "predictions.parquet")


def true_risk(dataset: Dataset, task: str, samples: SiteSamples) -> np.ndarray:
    """Float64 [n]: each sample's true risk.

    Raises:
        InputError: the dataset carries no truth, or none for some sample.
    """
    manifest = dataset.manifest
    if manifest.truth is None:
        raise InputError(f"the site {samples.site} carries no truth; only simulated hospitals do")
    truths = pl.read_parquet(dataset.root / manifest.truth)
    truth = truths.filter(pl.col("task") == task)
    if truth.is_empty():
        tasks = ", ".join(truths["task"].unique().sort())
        raise InputError(f"the simulation knows the true risks of {tasks} only, so {task} has no oracle")
    admissions = (
        dataset.scan()
        .filter(pl.col("code").str.starts_with("HOSPITAL_ADMISSION//"))
        .group_by("subject_id")
        .agg(admitted=pl.col("time").min())
        .collect()
    )
    at_offset = pl.col("admitted") + pl.duration(minutes=pl.col("offset_minutes"))
    known = truth.join(admissions, on="subject_id", how="left").select(
        "subject_id", "true_risk", prediction_time=pl.coalesce("prediction_time", at_offset)
    )
    wanted = pl.DataFrame({"subject_id": samples.subject_id, "prediction_time": samples.prediction_time})
    found = wanted.join(known, on=["subject_id", "prediction_time"], how="left", maintain_order="left")
    missing = found["true_risk"].null_count()
    if missing or found.height != wanted.height:
        raise InputError(f"the truth of {samples.site} lacks {missing} of {wanted.height} samples of {task}")
    return found["true_risk"].to_numpy().astype(np.float64)
