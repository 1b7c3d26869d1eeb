"""What sites tell each other about their data before training: counts, moments and histograms that merge.

A sketch is the only form in which a statistic of patients leaves a site. Three exist, each with a fixed schema:

- `Counts`: for each name (a code, a group of codes) the number of *patients* that have it. It leaves because sites
  must agree on a vocabulary. A name that fewer than `minimum` patients have does not leave, nor does its count: a rare
  code can be a person.
- `Moments`: for each column the number of values, their sum and their sum of squares. It leaves because sites must
  agree on a centre and a scale. A column known for fewer than `minimum` patients does not leave, nor one in which all
  but fewer than `minimum` share one value: where hundreds have no lactate measured, a sum of counts is the count of
  the one who has.
- `Histogram`: for each column, how many patients fall in each cell of a grid that is public and fixed before anyone
  looks at data. It leaves because values are clipped at quantiles. Every patient is counted once in a column, and a
  cell of fewer than `minimum` patients is joined with its neighbours, so that each cell that is not empty holds at
  least `minimum` patients. (The tails of a KLL or t-digest sketch are single patients; those of this one are not.)

No row, patient id, date, minimum or maximum is in any of them. They carry no noise: the `minimum` is a disclosure
rule, not differential privacy. What it does not prevent: the difference of two numbers (of all patients and those who
have a code, of one run and the next with a patient more) may stand for fewer.

Sketches form a commutative monoid: `a.merge(b)` equals `b.merge(a)`, and grouping does not matter; counts exactly,
floating sums up to rounding (a server merges in site order, so that a run repeats bit for bit). With `minimum=1` the
merge of sites' sketches equals the sketch of their rows brought together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

DEFAULT_MINIMUM = 10
"""The fewest patients a released number may stand for."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class ReleaseError(ValueError):
    """What was about to leave a site, or what came from one, does not fit the schema of a release."""


def _aligned(own: tuple[str, ...], other: tuple[str, ...]) -> tuple[tuple[str, ...], Integers, Integers]:
    """The united names in order, and where each of the two stands among them."""
    united = tuple(sorted(set(own) | set(other)))
    place = {name: i for i, name in enumerate(united)}
    return united, np.array([place[n] for n in own], np.int64), np.array([place[n] for n in other], np.int64)


def _added(size: int, at: Integers, values: npt.NDArray[Any], at_other: Integers, other: npt.NDArray[Any]) -> Any:
    out = np.zeros((size, *values.shape[1:]), values.dtype)
    out[at] += values
    out[at_other] += other
    return out


def _patients(names: int, index: Integers, patient: Integers) -> Integers:
    """How many distinct patients each name has."""
    ids, dense = np.unique(patient, return_inverse=True)
    pair = index * max(len(ids), 1) + dense
    if names * len(ids) <= 2**28:  # a table of all pairs is faster than sorting them
        has = np.zeros(names * len(ids), np.bool_)
        has[pair] = True
        count: Integers = has.reshape(names, len(ids)).sum(axis=1, dtype=np.int64)
        return count
    distinct = np.unique(pair) // len(ids)
    return np.bincount(distinct, minlength=names).astype(np.int64)


def _few_differ(values: Floats, patient: Integers, minimum: int) -> bool:
    """Whether fewer than `minimum` patients, but some, have another value in a column than the others share.

    If they are so few, most of any 2 * minimum patients have the shared value: a look at the first ones names it.
    """
    whose, first = np.unique(patient[:_FIRST], return_index=True)
    if len(whose) < 2 * minimum:
        whose, first = np.unique(patient, return_index=True)
    value, held = np.unique(values[first], return_counts=True)
    if held.max(initial=0) < 2:
        return False
    others = patient[values != value[held.argmax()]]
    return len(np.unique(others[:_FIRST])) < minimum and 0 < len(np.unique(others)) < minimum


_FIRST = 4096
"""Values that are looked at before a whole column is."""


class _Named:
    """Shared by the sketches: names, the wire form, and the checks that hold for each array."""

    names: tuple[str, ...]
    minimum: int

    _arrays: ClassVar[Mapping[str, tuple[type, int]]]
    """Field name -> (dtype, number of axes); the first axis has one entry a name."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if list(self.names) != sorted(set(self.names)) or any("\n" in n or not n for n in self.names):
            raise ReleaseError(f"{kind}: names must be unique, sorted, not empty and on one line each.")
        if self.minimum < 1:
            raise ReleaseError(f"{kind}: minimum must be 1 or more, not {self.minimum}.")
        for field, (dtype, axes) in self._arrays.items():
            array = getattr(self, field)
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != axes:
                raise ReleaseError(f"{kind}.{field}: expected {np.dtype(dtype).name} with {axes} axes.")
            if array.shape[0] != len(self.names):
                raise ReleaseError(f"{kind}.{field}: {array.shape[0]} entries for {len(self.names)} names.")
            if not np.all(np.isfinite(array)):
                raise ReleaseError(f"{kind}.{field}: every number must be finite.")
            array.flags.writeable = False

    def _check_cells(self, cells: Integers) -> None:
        """No number that stands for fewer than `minimum` patients may exist as a sketch at all."""
        small = (cells != 0) & (cells < self.minimum)
        if np.any(small):
            raise ReleaseError(
                f"{type(self).__name__}: {int(small.sum())} counts are below the minimum of {self.minimum}."
            )

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The sketch as plain arrays: `names` is UTF-8 text (uint8, a name a line), `minimum` int64 [1]."""
        text = np.frombuffer("\n".join(self.names).encode(), np.uint8).copy()
        own: dict[str, npt.NDArray[Any]] = {field: getattr(self, field) for field in self._arrays}
        return {"names": text, "minimum": np.array([self.minimum], np.int64), **own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Read what `to_arrays` wrote.

        Raises:
            ReleaseError: A key is missing or unknown, or an array has another type or shape than the schema says.
        """
        expected = {"names", "minimum", *cls._arrays}
        if set(arrays) != expected:
            raise ReleaseError(f"{cls.__name__}: expected arrays {sorted(expected)}, found {sorted(arrays)}.")
        names, minimum = arrays["names"], arrays["minimum"]
        if names.dtype != np.uint8 or names.ndim != 1 or minimum.dtype != np.int64 or minimum.shape != (1,):
            raise ReleaseError(f"{cls.__name__}: names must be uint8 [bytes] and minimum int64 [1].")
        try:
            text = names.tobytes().decode()
        except UnicodeDecodeError:
            raise ReleaseError(f"{cls.__name__}: names are not UTF-8 text.") from None
        own = {field: np.array(arrays[field]) for field in cls._arrays}
        made: Any = cls
        return cast("Self", made(names=tuple(text.split("\n")) if text else (), minimum=int(minimum[0]), **own))


@dataclass(frozen=True, eq=False)
class Counts(_Named):
    """Patients by name.

    Attributes:
        names: What is counted, sorted.
        counts: int64 [names], patients, each at least `minimum`.
        minimum: The fewest patients a count may stand for.
    """

    names: tuple[str, ...]
    counts: Integers
    minimum: int = DEFAULT_MINIMUM

    _arrays: ClassVar = {"counts": (np.int64, 1)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if np.any(self.counts <= 0):
            raise ReleaseError("Counts: a name that nobody has is not released.")
        self._check_cells(self.counts)

    @classmethod
    def release(
        cls, names: Sequence[str], index: npt.ArrayLike, patient: npt.ArrayLike, minimum: int = DEFAULT_MINIMUM
    ) -> "Counts":
        """Count the distinct patients of each name; names of fewer than `minimum` stay at the site.

        Args:
            names: All names of the site.
            index: int [pairs], a position in `names`.
            patient: int [pairs], the patient who has it; a pair may occur several times.
            minimum: The fewest patients a count may stand for.

        >>> Counts.release(["I10", "E11"], [0, 0, 0, 1], [7, 7, 8, 7], minimum=2)
        Counts(names=('I10',), counts=array([2]), minimum=2)
        """
        count = _patients(len(names), np.asarray(index, np.int64), np.asarray(patient, np.int64))
        kept = sorted((names[i], int(count[i])) for i in np.flatnonzero(count >= max(minimum, 1)).tolist())
        return cls(tuple(n for n, _ in kept), np.array([c for _, c in kept], np.int64), minimum)

    def merge(self, other: "Counts") -> "Counts":
        """Add two sites' counts; names are united."""
        names, at, at_other = _aligned(self.names, other.names)
        counts = _added(len(names), at, self.counts, at_other, other.counts)
        return Counts(names, counts, min(self.minimum, other.minimum))


@dataclass(frozen=True, eq=False)
class Moments(_Named):
    """Number, sum and sum of squares by column.

    Attributes:
        names: The columns, sorted.
        counts: int64 [names], values that were present.
        totals: float64 [names], their sum, in the column's unit.
        squares: float64 [names], the sum of their squares.
        minimum: The fewest patients a column may stand for.
    """

    names: tuple[str, ...]
    counts: Integers
    totals: Floats
    squares: Floats
    minimum: int = DEFAULT_MINIMUM

    _arrays: ClassVar = {"counts": (np.int64, 1), "totals": (np.float64, 1), "squares": (np.float64, 1)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if np.any(self.counts <= 0):
            raise ReleaseError("Moments: a column without a value is not released.")
        self._check_cells(self.counts)

    @classmethod
    def release(
        cls,
        names: Sequence[str],
        index: npt.ArrayLike,
        values: npt.ArrayLike,
        patient: npt.ArrayLike,
        minimum: int = DEFAULT_MINIMUM,
    ) -> "Moments":
        """Sum the values of each column.

        Columns of fewer than `minimum` patients stay at the site, and those in which 1 to `minimum` - 1 patients have
        another value than the others share.

        Args:
            names: All columns of the site.
            index: int [values], a position in `names`.
            values: float [values], no NaN.
            patient: int [values], whose it is.
            minimum: The fewest patients a column may stand for.

        >>> Moments.release(["age", "lactate"], [0, 0, 1], [60, 70, 2.5], [1, 2, 2], minimum=2).mean()
        array([65.])
        """
        i, v = np.asarray(index, np.int64), np.asarray(values, np.float64)
        patients = _patients(len(names), i, np.asarray(patient, np.int64))
        sums = (
            np.bincount(i, minlength=len(names)).astype(np.int64),
            np.bincount(i, v, minlength=len(names)).astype(np.float64),
            np.bincount(i, v * v, minlength=len(names)).astype(np.float64),
        )
        enough = np.flatnonzero(patients >= max(minimum, 1)).tolist()
        if minimum > 1:
            order = np.argsort(i, kind="stable")
            ends = np.cumsum(sums[0])
            by_column, whose = v[order], np.asarray(patient, np.int64)[order]
            parts = {k: slice(ends[k] - sums[0][k], ends[k]) for k in enough}
            enough = [k for k in enough if not _few_differ(by_column[parts[k]], whose[parts[k]], minimum)]
        kept = sorted(enough, key=lambda k: names[k])
        return cls(tuple(names[k] for k in kept), sums[0][kept], sums[1][kept], sums[2][kept], minimum)

    def merge(self, other: "Moments") -> "Moments":
        """Add two sites' sums; columns are united."""
        names, at, at_other = _aligned(self.names, other.names)
        sums = {f: _added(len(names), at, getattr(self, f), at_other, getattr(other, f)) for f in self._arrays}
        return Moments(names, minimum=min(self.minimum, other.minimum), **sums)

    def mean(self) -> Floats:
        """float64 [names]."""
        return self.totals / self.counts

    def deviation(self) -> Floats:
        """Standard deviation (divided by n), float64 [names]; 0 for a constant column."""
        variance = self.squares / self.counts - self.mean() ** 2
        # What rounding alone leaves of a constant column counts as no spread.
        noise = 1e-12 * self.squares / self.counts
        return cast("Floats", np.sqrt(np.where(variance > noise, variance, 0.0)))


@dataclass(frozen=True, eq=False)
class Histogram(_Named):
    """Patients by cell of a public grid, for each column.

    Attributes:
        names: The columns, sorted.
        edges: float64 [names, cells + 1], increasing; values outside count in the first and last cell.
        counts: int64 [names, cells], patients; 0 or at least `minimum`.
        minimum: The fewest patients a cell that is not empty may hold.
    """

    names: tuple[str, ...]
    edges: Floats
    counts: Integers
    minimum: int = DEFAULT_MINIMUM

    _arrays: ClassVar = {"edges": (np.float64, 2), "counts": (np.int64, 2)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.names and (self.edges.shape[1] != self.counts.shape[1] + 1 or np.any(np.diff(self.edges) <= 0)):
            raise ReleaseError("Histogram: edges must increase and be one more than the cells.")
        if np.any(self.counts < 0):
            raise ReleaseError("Histogram: a count is negative.")
        self._check_cells(self.counts)

    @classmethod
    def release(
        cls, names: Sequence[str], edges: Floats, values: npt.NDArray[Any], minimum: int = DEFAULT_MINIMUM
    ) -> "Histogram":
        """Count patients by cell.

        Args:
            names: The columns.
            edges: float64 [names, cells + 1], the public grid.
            values: float [patients, names], one row a patient; NaN is missing.
            minimum: The fewest patients a cell may hold; smaller ones are joined with what follows them. A column
                of fewer patients stays at the site.

        >>> h = Histogram.release(["age"], np.array([[0.0, 30, 60, 90]]), np.array([[20.0], [40], [45], [50]]), 2)
        >>> h.counts.tolist()
        [[0, 4, 0]]
        """
        rows = []
        for k in sorted(range(len(names)), key=lambda k: names[k]):
            present = values[:, k][~np.isnan(values[:, k])]
            if len(present) < max(minimum, 1):
                continue
            cell = np.clip(np.searchsorted(edges[k], present, side="right") - 1, 0, edges.shape[1] - 2)
            rows.append((k, _joined(np.bincount(cell, minlength=edges.shape[1] - 1), minimum)))
        cells = edges.shape[1] - 1
        kept = [k for k, _ in rows]
        counts = np.array([c for _, c in rows], np.int64).reshape(len(kept), cells)
        return cls(tuple(names[k] for k in kept), np.array(edges[kept], np.float64), counts, minimum)

    def merge(self, other: "Histogram") -> "Histogram":
        """Add two sites' histograms; columns are united.

        Raises:
            ReleaseError: The grids of a column differ.
        """
        if not self.names or not other.names:
            full = self if self.names else other
            return Histogram(full.names, full.edges, full.counts, min(self.minimum, other.minimum))
        if self.edges.shape[1] != other.edges.shape[1]:
            raise ReleaseError("Histogram: the grids have different numbers of cells.")
        names, at, at_other = _aligned(self.names, other.names)
        edges = np.zeros((len(names), self.edges.shape[1]))
        edges[at] = self.edges
        edges[at_other] = other.edges
        if not np.array_equal(edges[at], self.edges):
            raise ReleaseError("Histogram: the grid of a column differs between sites.")
        counts = _added(len(names), at, self.counts, at_other, other.counts)
        return Histogram(names, edges, counts, min(self.minimum, other.minimum))

    def quantile(self, q: float) -> Floats:
        """The edge at or above which the q-quantile's cell ends (q > 0.5) or begins (q <= 0.5), float64 [names]."""
        total = self.counts.sum(axis=1, keepdims=True)
        below = np.cumsum(self.counts, axis=1)
        cell = np.argmax(below >= np.maximum(q * total, 1), axis=1)
        rows = np.arange(len(self.names))
        return cast("Floats", self.edges[rows, cell + (1 if q > 0.5 else 0)])


@dataclass(frozen=True, eq=False)
class NoisyHistogram(_Named):
    """Patients by cell of a public grid, for each column, with Gaussian noise: what leaves under differential privacy.

    It leaves for what `Histogram` does. Each patient is counted in one cell of each column at most, so that without one
    patient the whole moves by at most the root of the number of columns (L2); the noise is `noise_multiplier` times
    that, on every cell, empty or not, of every column, known or not. No minimum is needed beside it.

    Attributes:
        names: The columns, sorted: all of a public list.
        edges: float64 [names, cells + 1], increasing; values outside count in the first and last cell.
        counts: float64 [names, cells], patients and noise; may be below 0.
        variance: float64 [names], that of a cell's noise.
        minimum: Of no meaning here; kept so that all sketches have one form.
    """

    names: tuple[str, ...]
    edges: Floats
    counts: Floats
    variance: Floats
    minimum: int = DEFAULT_MINIMUM

    _arrays: ClassVar = {"edges": (np.float64, 2), "counts": (np.float64, 2), "variance": (np.float64, 1)}

    @classmethod
    def release(
        cls, names: Sequence[str], edges: Floats, values: npt.NDArray[Any], noise_multiplier: float, noise: Floats
    ) -> "NoisyHistogram":
        """Count patients by cell and add noise.

        Args:
            names: The columns, sorted.
            edges: float64 [names, cells + 1], the public grid.
            values: float [patients, names], one row a patient; NaN is missing.
            noise_multiplier: The noise's standard deviation over the root of the number of columns.
            noise: float64 [names, cells], independent standard normals.
        """
        cells = edges.shape[1] - 1
        counts = np.zeros((len(names), cells))
        for k in range(len(names)):
            present = values[:, k][~np.isnan(values[:, k])]
            cell = np.clip(np.searchsorted(edges[k], present, side="right") - 1, 0, cells - 1)
            counts[k] = np.bincount(cell, minlength=cells)
        deviation = noise_multiplier * np.sqrt(len(names))
        return cls(tuple(names), edges, counts + deviation * noise, np.full(len(names), deviation**2))

    def merge(self, other: "NoisyHistogram") -> "NoisyHistogram":
        """Add two sites' histograms.

        Raises:
            ReleaseError: Their columns or grids differ: both are public.
        """
        if self.names != other.names or not np.array_equal(self.edges, other.edges):
            raise ReleaseError("NoisyHistogram: the public columns or grids differ between sites.")
        return NoisyHistogram(
            self.names, self.edges, self.counts + other.counts, self.variance + other.variance, self.minimum
        )

    def quantiles(self, *shares: float) -> list[Floats]:
        """Where these shares of the patients lie below, float64 [names] each; NaN in columns that are all noise.

        Each column's patients are taken to lie in one run of cells (`_run`), and nobody outside it.
        """
        found = np.full((len(shares), len(self.names)), np.nan)
        for k, counts in enumerate(self.counts):
            run = _run(counts, float(np.sqrt(self.variance[k])))
            if run is not None:
                below = np.concatenate([[0], np.cumsum(np.maximum(counts[run], 0))])
                edges = self.edges[k][run.start : run.stop + 1]
                found[:, k] = np.interp(np.array(shares) * below[-1], below, edges)
        return list(found)


def _run(counts: Floats, deviation: float) -> slice | None:
    """The run of cells that stands out most from noise, or None if noise alone would come to it once in 30,000 runs.

    A run's sum has noise of `deviation` times the root of its length; that which exceeds twice its noise by most is
    taken. A cell's own noise hardly matters so: tails count where the run reaches them, and stray cells do not.
    """
    sums = np.concatenate([[0], np.cumsum(counts)])
    length = np.arange(len(sums)) - np.arange(len(sums))[:, None]
    noise = deviation * np.sqrt(np.maximum(length, 0))
    above = np.where(length > 0, sums - sums[:, None] - 2 * noise, -np.inf)
    first, last = np.unravel_index(np.argmax(above), above.shape)
    told = sums[last] - sums[first] > max(4 * noise[first, last], 0)
    return slice(int(first), int(last)) if told else None


def _joined(counts: npt.NDArray[Any], minimum: int) -> Integers:
    """Join neighbouring cells, from the low end, until each that is not empty holds at least `minimum`."""
    out = np.zeros(len(counts), np.int64)
    carried, last = 0, -1
    for i in np.flatnonzero(counts).tolist():
        carried += int(counts[i])
        if carried >= minimum:
            out[i], carried, last = carried, 0, i
    out[last] += carried
    return out


Sketch = Counts | Moments | Histogram | NoisyHistogram
Sketches = Mapping[str, Sketch]
KINDS: Mapping[str, type[Counts] | type[Moments] | type[Histogram] | type[NoisyHistogram]] = {
    kind.__name__: kind for kind in (Counts, Moments, Histogram, NoisyHistogram)
}


def merge(sketches: Sequence[Sketches]) -> dict[str, Sketch]:
    """Merge sites' sketches, in the order given.

    Raises:
        ReleaseError: No sketches, or a sketch of the same key has another kind at another site.
    """
    if not sketches:
        raise ReleaseError("No site sent a sketch: nothing can be agreed on.")

    def both(a: Sketches, b: Sketches) -> dict[str, Sketch]:
        out = {**a, **b}
        for key in set(a) & set(b):
            if type(a[key]) is not type(b[key]):
                raise ReleaseError(f"Sketch '{key}' is {type(a[key]).__name__} here and {type(b[key]).__name__} there.")
            out[key] = a[key].merge(b[key])  # type: ignore[arg-type]
        return {key: out[key] for key in sorted(out)}

    return reduce(both, sketches[1:], both(sketches[0], {}))


def pack(sketches: Sketches) -> dict[str, npt.NDArray[Any]]:
    """Sketches as plain arrays, keyed `<sketch>/<kind>/<array>`: what a message carries."""
    return {
        f"{key}/{type(sketch).__name__}/{field}": array
        for key, sketch in sorted(sketches.items())
        for field, array in sketch.to_arrays().items()
    }


def unpack(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Sketch]:
    """Read what `pack` wrote.

    Raises:
        ReleaseError: An array that no sketch has.
    """
    groups: dict[tuple[str, str], dict[str, npt.NDArray[Any]]] = {}
    for path, array in arrays.items():
        parts = path.split("/")
        if len(parts) != 3 or parts[1] not in KINDS:
            raise ReleaseError(f"'{path}' is no array of a sketch; expected NAME/KIND/ARRAY.")
        groups.setdefault((parts[0], parts[1]), {})[parts[2]] = array
    return {key: KINDS[kind].from_arrays(group) for (key, kind), group in groups.items()}
