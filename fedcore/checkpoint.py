"""Where a federation's checkpoint lies, and which federation it is of.

    <folder>/journal     what the sites answered (`fedcore.engines.journal`)
    <folder>/sites/      what each of them remembers (`fedcore.memory`)

It is patient data: in a simulation the sites' memories lie beside the coordinator's journal, under FEDWARD_HOME.
"""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from fedcore.engines.journal import Journal
from fedcore.request import FederationRequest
from fedcore.samples import SiteSamples

SITES = "sites"


def federation_key(request: FederationRequest, training: Sequence[SiteSamples]) -> str:
    """What names a federation: what was asked, and of whom. The engine is no part of it.

    Who the samples are of is hashed, what was extracted for them is not: a folder serves one way of extracting.
    """
    digest = hashlib.sha256(request.model_dump_json(exclude={"engine"}).encode())
    for samples in training:
        digest.update(samples.site.encode() + b"\0")
        for part in (samples.subject_id, samples.patient_id, samples.prediction_time.astype(np.int64), samples.label):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(samples.split.astype("S13").tobytes())
    return digest.hexdigest()


def journal(
    folder: Path | None, request: FederationRequest, training: Sequence[SiteSamples]
) -> AbstractContextManager[Journal | None]:
    """The federation's journal; none without a folder.

    Raises:
        CheckpointError: the folder holds one of another federation.
    """
    return nullcontext() if folder is None else Journal(folder / "journal", federation_key(request, training))
