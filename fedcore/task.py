"""A prediction task: an ACES task file, and how its open predicates are filled for one kind of export.

Tasks are the files of `fedcore/tasks`, named by their path without ending; any other ACES file runs by its path, a
MEDS-DEV task file as it is. Where a file leaves a predicate open (`???`), it is filled from
`fedcore/tasks/predicates/common.yaml`, overridden by `predicates/<kind>.yaml` and by a file of the user's.

Beyond what ACES defines, a file's `metadata` may hold `description`, `window_hours` (how far before prediction time
measurements count; by default the time from trigger to prediction) and `steps` (a sentence for a window, or for a
constraint `window.predicate`, in the attrition table; an empty one joins it with the step after it).
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from aces.config import TaskExtractorConfig
from aces.types import ANY_EVENT_COLUMN, END_OF_RECORD_KEY, START_OF_RECORD_KEY
from aces.utils import parse_timedelta
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sites.errors import InputError
from sites.home import home

FOLDER = Path(__file__).parent / "tasks"
OPEN = "???"
SPECIAL = frozenset({ANY_EVENT_COLUMN, START_OF_RECORD_KEY, END_OF_RECORD_KEY})
DEFAULT_WINDOW_HOURS = 24.0

Definition = dict[str, Any]


class CannotServe(InputError):
    """This site cannot serve this task: it is skipped there, with this sentence."""


class Step(NamedTuple):
    """One step of a definition: the sentence for what it demands, and the task as far as this step."""

    sentence: str
    definition: Definition


@dataclass(frozen=True)
class Task:
    """A task file, read.

    Attributes:
        name: Its name, or the stem of its file.
        path: The file.
        sha256: Of the file, of the predicates files that can fill it, and of the user's.
        definition: The file's content: `predicates`, `trigger`, `windows`, `metadata`, ...
        predicates: A user's own predicates file, or None.
    """

    name: str
    path: Path
    sha256: str
    definition: Definition
    predicates: Path | None = None

    @cached_property
    def description(self) -> str:
        """What is predicted, in words."""
        text = self.definition.get("description") or self.metadata.get("description") or ""
        return " ".join(str(text).split())

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The file's own remarks."""
        return cast("Mapping[str, Any]", self.definition.get("metadata") or {})

    @cached_property
    def windows(self) -> dict[str, dict[str, Any]]:
        """The windows, each after those that it refers to."""
        left = dict(self.definition.get("windows") or {})
        ordered: dict[str, dict[str, Any]] = {}
        while left:
            free = [n for n, w in left.items() if not (_references(w) & set(left)) - {n}]
            for name in free or list(left):
                ordered[name] = left.pop(name)
        return ordered

    @cached_property
    def label(self) -> str:
        """The predicate that is predicted."""
        return next(str(w["label"]) for w in self.windows.values() if w.get("label"))

    @cached_property
    def window_hours(self) -> float:
        """How far before prediction time measurements count: from the trigger on, where the file says when that is."""
        if "window_hours" in self.metadata:
            return float(self.metadata["window_hours"])
        for window in self.windows.values():
            if at := window.get("index_timestamp"):
                offset = re.fullmatch(r"\s*trigger\s*\+\s*(.+?)\s*", str(window[at]))
                if offset:
                    return float(parse_timedelta(offset[1]).total_seconds() / 3600)
        return DEFAULT_WINDOW_HOURS

    def inputs(self, predicate: str) -> set[str]:
        """The plain predicates that a predicate is made of."""
        expression = (self.definition["predicates"].get(predicate) or {}) if predicate not in SPECIAL else {}
        if not isinstance(expression, dict) or "expr" not in expression:
            return {predicate}
        names = re.findall(r"\w+", expression["expr"].partition("(")[2])
        return {plain for name in names for plain in self.inputs(name)}

    @cached_property
    def ends(self) -> set[str]:
        """The predicates at which windows begin or end."""
        marks = (re.search(r"(?:->|<-)\s*(\w+)", str(w.get(side))) for w in self.windows.values() for side in SIDES)
        return {m[1] for m in marks if m} - SPECIAL

    def filled(self, kind: str) -> Definition:
        """The definition with its open predicates filled for one kind of export.

        Raises:
            CannotServe: No file says what an open predicate is at this kind of export, or the kind declares that it
                serves other tasks only.
        """
        known: dict[str, Any] = {}
        for path in (FOLDER / "predicates" / "common.yaml", FOLDER / "predicates" / f"{kind}.yaml", self.predicates):
            if path is None or not path.is_file():
                continue
            read = _read(path)
            remarks = read.get("metadata") or {}
            if "serves" in remarks and self.name not in remarks["serves"]:
                served = ", ".join(remarks["serves"]) or "no task"
                raise CannotServe(f"A {kind} export cannot serve {self.name}: {remarks['reason']}; it serves {served}.")
            known |= read.get("predicates") or {}
        predicates = {}
        for name, value in (self.definition.get("predicates") or {}).items():
            is_open = value == OPEN or (isinstance(value, dict) and value.get("code") == OPEN)
            if is_open and name not in known and self._uses(name):
                raise CannotServe(
                    f"{self.path}: predicate '{name}' is left open (???) and no predicates file says what it is in a "
                    f"{kind} export; add it to a predicates file."
                )
            if not is_open or name in known:
                predicates[name] = known[name] if is_open else value
        # A predicate of the predicates file may itself be made of others of that file.
        return {**self.definition, "predicates": {**known, **predicates}}

    def _uses(self, predicate: str) -> bool:
        has = {name for window in self.windows.values() for name in window.get("has") or {}}
        used = {str(self.definition["trigger"]), self.label, *self.ends, *has}
        return any(predicate in self.inputs(name) for name in used)

    def steps(self, kind: str) -> Iterator[Step]:
        """The definition, grown constraint by constraint; the last step is the whole task.

        Each step demands all that the one before demands, so the samples of one are among those of the one before.
        """
        filled = self.filled(kind)
        words = self.metadata.get("steps") or {}
        windows: dict[str, dict[str, Any]] = {}

        def step(sentence: str) -> Step:
            return Step(sentence, {**filled, "windows": json.loads(json.dumps(windows))})

        yield step(f"{filled['trigger']} events, one for each patient and time")
        pending = False
        for name, window in self.windows.items():
            windows[name] = {key: value for key, value in window.items() if key != "has"}
            # Every record begins; whether the event that a window waits for comes is another matter.
            waits = window.get("end") is None or any(re.search("->|<-", str(window.get(side))) for side in SIDES)
            demands = {name: "its beginning and end are on record"} if waits else {}
            demands |= {f"{name}.{p}": f"{p} occurs {_in_words(b)}" for p, b in (window.get("has") or {}).items()}
            pending = pending or not waits
            for demand, otherwise in demands.items():
                if demand != name:
                    predicate = demand.partition(".")[2]
                    windows[name].setdefault("has", {})[predicate] = window["has"][predicate]
                sentence = words.get(demand, f"{name}: {otherwise}")
                pending = not sentence
                if sentence:
                    yield step(sentence)
        if pending:
            yield step("the whole definition")


SIDES = ("start", "end")


def _references(window: Mapping[str, Any]) -> set[str]:
    return {m[1] for side in SIDES for m in [re.match(r"\s*(\w+)\.(?:start|end)", str(window.get(side)))] if m}


def _in_words(bounds: str) -> str:
    low, high = (part.strip() for part in str(bounds).strip("() ").split(","))
    if low == "None":
        return "never" if high == "0" else f"at most {high} times"
    return f"at least {low} times" if high == "None" else f"{low} to {high} times"


def _read(path: Path) -> Definition:
    try:
        read = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise InputError(f"{path}: found text that is not YAML ({where}), expected an ACES file.") from None
    if not isinstance(read, dict):
        raise InputError(f"{path}: found no keys, expected an ACES file with 'predicates', 'trigger' and 'windows'.")
    return cast("Definition", read)


def extractor(definition: Definition) -> TaskExtractorConfig:
    """Make ACES' configuration anew.

    ACES 0.7.3 alters the configuration it is given while it runs (window offsets add up), so that a second query with
    the same object loses samples without a word. Never use what this returns twice.
    """
    # ACES reads a file; JSON is YAML.
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=home(), encoding="utf-8") as file:
        json.dump({key: value for key, value in definition.items() if key != "metadata"}, file)
        file.flush()
        return TaskExtractorConfig.load(Path(file.name))


def tasks() -> list[str]:
    """The names of the tasks that come with FedWard."""
    paths = (path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.yaml"))
    return sorted(path.as_posix() for path in paths if path.parts[0] != "predicates")


def load_task(name_or_path: str | Path, predicates: str | Path | None = None) -> Task:
    """Read a task.

    Args:
        name_or_path: `mortality/in_hospital/first_24h`, or the path of an ACES file (ends in .yaml).
        predicates: A file in the format of MEDS-DEV's predicates files, for datasets with codes of their own.

    Raises:
        InputError: There is no such task, or the file is none that ACES can read.
    """
    name = str(name_or_path)
    path = FOLDER / f"{name}.yaml"
    if name not in tasks():
        path = Path(name).expanduser()
        if path.suffix != ".yaml" or not path.is_file():
            raise InputError(
                f"Task '{name}': found neither a task of that name nor a file; expected one of {', '.join(tasks())}, "
                "or the path of an ACES task file that ends in .yaml."
            )
        name = path.stem
    own = Path(predicates).expanduser() if predicates else None
    if own is not None and not own.is_file():
        raise InputError(f"{own}: found no such predicates file; give the path of one.")
    files = [path, *sorted((FOLDER / "predicates").glob("*.yaml")), *([own] if own else [])]
    digest = hashlib.sha256(b"".join(hashlib.sha256(f.read_bytes()).digest() for f in files)).hexdigest()
    task = Task(name, path, digest, _read(path), own)
    _check(task)
    return task


def _check(task: Task) -> None:
    """Let ACES read the file with any code in the place of the open predicates."""
    for key in ("predicates", "trigger", "windows"):
        if not task.definition.get(key):
            raise InputError(f"{task.path}: '{key}' is missing; an ACES task file needs it.")
    predicates = task.definition["predicates"]
    closed = {
        name: {"code": "OPEN"} if value == OPEN or (isinstance(value, dict) and value.get("code") == OPEN) else value
        for name, value in predicates.items()
    }
    try:
        config = extractor({**task.definition, "predicates": closed})
    except Exception as error:  # ACES raises what it likes
        raise InputError(f"{task.path}: ACES cannot read it: {' '.join(str(error).split())}") from None
    if config.label_window is None or config.index_timestamp_window is None:
        missing = "label" if config.label_window is None else "index_timestamp"
        raise InputError(f"{task.path}: no window has '{missing}'; a prediction task needs one.")
