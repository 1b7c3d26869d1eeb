"""How a representation turns events into tensors, in four steps, and what the sites agree on in between.

1. `extract`, at the site: a MEDS dataset and the samples become plain arrays that depend on nothing but this site.
2. `sketch`, at the site: statistics of its *training* samples that may leave it (`privacy.releases.sketches`).
3. `agree`, at the server: the merged sketches become a `FeatureSpace`: columns, vocabulary, centre, scale.
4. `encode`, at the site: arrays and space become tensors of the same shape everywhere.

A representation is a module of this folder with a `REPRESENTATION`. Whatever it does, it looks at no event after
`prediction_time`; `fedcore.features.events` holds that line for all of them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy.typing as npt
import polars as pl

from fedcore.registry import Registry
from fedcore.samples import SiteSamples
from privacy.noise import Source
from privacy.releases.sketches import DEFAULT_MINIMUM, Sketch, Sketches
from sites.dataset import Dataset

Arrays = dict[str, npt.NDArray[Any]]


class Raw(NamedTuple):
    """What `extract` returns: `SiteSamples.raw` and `SiteSamples.names`."""

    arrays: Arrays
    names: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class FeatureSpace:
    """What the sites agreed on. The same at every site, and public within the federation.

    Attributes:
        representation: Its name.
        columns: The numeric columns or concepts that are kept.
        center: Their means, in the column's unit.
        scale: Their standard deviations, all above 0.
        low: Values below are set to it before standardising.
        high: Values above are set to it.
        vocabulary: The codes that are kept, in the order of their positions.
        sizes: What a model needs to know of the tensors' shapes: `x` (features), `vocabulary` (codes, with padding
            and unknown), `length` (events).
    """

    representation: str
    columns: tuple[str, ...] = ()
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    vocabulary: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Canonical JSON text: equal spaces have equal texts."""
        return json.dumps({**asdict(self), "sizes": dict(self.sizes)}, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "FeatureSpace":
        """Read what `to_json` wrote."""
        read: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
        return FeatureSpace(**values)


class Representation(Protocol):
    """One way of showing a patient's record to a model."""

    name: str

    def extract(self, dataset: Dataset, samples: pl.DataFrame, window_hours: float) -> Raw:
        """Turn events up to each sample's prediction time into arrays.

        Args:
            dataset: The site's events.
            samples: `subject_id`, `prediction_time`, ...; arrays have their rows in this order.
            window_hours: Measurements count from this many hours before prediction time.
        """
        ...

    def sketch(self, samples: SiteSamples, minimum: int = DEFAULT_MINIMUM) -> dict[str, Sketch]:
        """Describe these samples (the site's training samples) by what may leave the site."""
        ...

    def agree(self, sketches: Sketches) -> FeatureSpace:
        """Decide on the feature space from the sites' merged sketches.

        Raises:
            InputError: The sketches leave nothing to learn from.
        """
        ...

    def encode(self, samples: SiteSamples, space: FeatureSpace) -> Arrays:
        """Turn samples into tensors (float32 or int32, first axis n) of the shape that `space` says."""
        ...


@runtime_checkable
class PrivateRepresentation(Representation, Protocol):
    """A representation whose sites can agree with differential privacy."""

    def sketch_privately(self, samples: SiteSamples, noise_multiplier: float, source: Source) -> dict[str, Sketch]:
        """Describe these samples with noise; `agree` takes such sketches too.

        Args:
            samples: the site's training samples.
            noise_multiplier: the noise's standard deviation over the most that one patient can move all of it (L2).
            source: of the noise.
        """
        ...


def _of_a_user(_name: str, found: object) -> Representation:
    return cast("Representation", found)


REPRESENTATIONS = Registry[Representation](
    "representation",
    "fedcore.features",
    "REPRESENTATION",
    no_part=("representation", "events", "noisy"),
    of_a_user=_of_a_user,
)

names, module, load = REPRESENTATIONS.names, REPRESENTATIONS.module, REPRESENTATIONS.load
