"""What an attacker may see of a federation: its final model, and what passed the coordinator in each round.

It is kept beside the predictions, under FEDWARD_HOME, of cells that are attacked, and of no others.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcore.features.representation import FeatureSpace
from fedcore.federation import FederationResult, Passed
from fedcore.learner import Arrays, Setting

FILE = "transcript.npz"


@dataclass(frozen=True)
class Transcript:
    """A federation as a coordinator remembers it.

    Attributes:
        model: the final one.
        space: the features it takes.
        setting: the hyperparameters it was trained with.
        passed: each site's trainings of the trial that was chosen, in the order in which they came.
        skipped: sites that took no part.
    """

    model: Arrays
    space: FeatureSpace
    setting: Setting
    passed: tuple[Passed, ...]
    skipped: frozenset[str]

    @classmethod
    def of(cls, result: FederationResult, passed: Iterable[Passed]) -> "Transcript":
        """The transcript of a federation that has one model, of all that its coordinator saw.

        Raises:
            ValueError: it has none.
        """
        if result.space is None:
            raise ValueError("sites that train alone have no model in common to attack")
        chosen = tuple(one for one in passed if one.trial == result.chosen)
        return cls(result.arrays, result.space, result.setting, chosen, frozenset(result.skipped))

    def of_site(self, site: str) -> list[Passed]:
        """What passed of one site, round by round."""
        return [one for one in self.passed if one.site == site]

    def write(self, folder: Path) -> None:
        """Keep it in a folder."""
        held: dict[str, np.ndarray] = {}
        seen: dict[int, str] = {}

        def put(arrays: Arrays) -> dict[str, str]:
            """Each array once: all sites of a round are sent the same."""
            names = {}
            for name, value in arrays.items():
                if id(value) not in seen:
                    seen[id(value)] = key = f"a{len(held)}"
                    held[key] = value
                names[name] = seen[id(value)]
            return names

        head = {
            "model": put(self.model),
            "space": self.space.to_json(),
            "setting": dict(self.setting),
            "passed": [[p.trial, p.round, p.site, put(p.sent), put(p.arrived)] for p in self.passed],
            "skipped": sorted(self.skipped),
        }
        np.savez(folder / FILE, allow_pickle=False, head=np.array(json.dumps(head)), **held)

    @classmethod
    def read(cls, folder: Path) -> "Transcript":
        """Take it from there."""
        with np.load(folder / FILE, allow_pickle=False) as found:
            head = json.loads(str(found["head"]))
            held = {name: found[name] for name in found.files if name != "head"}

        def got(names: Mapping[str, str]) -> dict[str, np.ndarray]:
            return {name: held[key] for name, key in names.items()}

        return cls(
            model=got(head["model"]),
            space=FeatureSpace.from_json(head["space"]),
            setting=head["setting"],
            passed=tuple(Passed(trial, number, site, got(x), got(y)) for trial, number, site, x, y in head["passed"]),
            skipped=frozenset(head["skipped"]),
        )
