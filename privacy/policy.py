"""A hospital's policy: a YAML file that says what its site takes part in, and on which terms.

    tasks: [mortality/in_hospital/first_24h]
    models: [logistic, "mylab.models:TINY@<sha256 of its code>"]
    smallest_count: 20
    privacy:
      required: true
      per_analysis: { epsilon: 4, delta: 1.0e-6 }
      total: { epsilon: 12, delta: 5.0e-6 }

What is left out is not ruled. Who enforces it is `fedcore.gate`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from privacy.ledger import Budget

SMALLEST = 10
"""No policy lets smaller counts leave than `privacy.releases` does."""


class PolicyError(ValueError):
    """A file that is no policy: one sentence."""


class PolicyRefusal(RuntimeError):
    """A site does not take part: one sentence that names the file and its rule, and tells nothing of any patient."""


Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Delta = Annotated[float, Field(strict=True, gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[^@\s]+$")]
Allowed = Annotated[str, Field(pattern=r"^[^@\s]+(@[0-9a-f]{64})?$")]
"""`NAME` of what comes with FedWard, or `NAME@SHA256` of anything."""

_ALLOWED = "a list of NAME, or of NAME@ and 64 hexadecimal digits (the sha256 of its code), one at least"


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(_Closed):
    """What may be spent of each training patient's privacy: both numbers at once."""

    epsilon: Positive = Field(description="a finite number above 0, such as 4")
    delta: Delta = Field(description="a number above 0 and below 1, such as 1.0e-6")

    @property
    def budget(self) -> Budget:
        """As ledgers count it."""
        return Budget(self.epsilon, self.delta)


class PrivacyRules(_Closed):
    """On which terms the site's training patients are learned from."""

    required: bool = Field(
        default=False, strict=True, description="true: no analysis without patient-level differential privacy"
    )
    noise: Literal["cryptographic", "any"] = Field(
        default="cryptographic",
        description="cryptographic, or any: seeded noise too, which protects nobody and is for data that is no secret",
    )
    shared_noise: bool = Field(
        default=False,
        strict=True,
        description="true: the noise may be shared among sites, on secure sums; false: this site adds all of its own",
    )
    per_analysis: Limit | None = Field(
        default=None, description="epsilon and delta, the most that one analysis (one cell) may spend"
    )
    total: Limit | None = Field(
        default=None, description="epsilon and delta, the most that all analyses of this site may spend together"
    )
    largest_clip: Positive | None = Field(
        default=None, description="a number above 0: the longest contribution of a patient to a gradient"
    )
    smallest_noise_multiplier: Positive | None = Field(
        default=None, description="a number above 0: the least noise of a training step, over its clip"
    )

    @model_validator(mode="after")
    def _limits_bind_everything(self) -> Self:
        for name in sorted(self.model_fields_set - {"required"}) if not self.required else ():
            raise ValueError(f"{name}: found without `required: true`, expected both; what has no noise has no limit")
        if self.total is None:
            return self
        if self.per_analysis is None:
            raise ValueError("total: found without per_analysis, expected both; say how much of it one analysis takes")
        for name in ("epsilon", "delta"):
            one, all_ = getattr(self.per_analysis, name), getattr(self.total, name)
            if one > all_:
                raise ValueError(f"per_analysis.{name}: found {one:g}, expected at most the total's {all_:g}")
        return self


class Policy(_Closed):
    """What a hospital allows."""

    valid_until: date | None = Field(
        default=None, strict=True, description="the last day on which the site takes part, such as 2027-12-31, unquoted"
    )
    tasks: tuple[Allowed, ...] | None = Field(default=None, min_length=1, description=_ALLOWED)
    suites: tuple[Name, ...] | None = Field(default=None, min_length=1, description="a list of names, one at least")
    models: tuple[Allowed, ...] | None = Field(default=None, min_length=1, description=_ALLOWED)
    strategies: tuple[Allowed, ...] | None = Field(default=None, min_length=1, description=_ALLOWED)
    smallest_count: int = Field(
        default=SMALLEST,
        ge=SMALLEST,
        strict=True,
        description=f"a whole number of {SMALLEST} or more: with fewer training patients the site takes no part, and "
        "smaller counts do not leave it",
    )
    privacy: PrivacyRules = Field(default=PrivacyRules(), description="rules of differential privacy")
    secure_aggregation: Literal["required", "optional"] = Field(
        default="optional", description="required or optional: whether updates may leave only inside a secure sum"
    )

    @model_validator(mode="after")
    def _own_code_has_a_hash(self) -> Self:
        if self.privacy.required:
            for field in ("models", "strategies"):
                for number, entry in enumerate(getattr(self, field) or ()):
                    if ":" in entry and "@" not in entry:
                        raise ValueError(
                            f"{field}.{number}: found {entry!r}, expected its hash behind it, NAME@SHA256, where "
                            "privacy is required"
                        )
        return self

    @classmethod
    def parse(cls, content: object, where: str) -> "Policy":
        """Take what YAML gives.

        Args:
            content: a mapping, as a rule.
            where: what the sentence about a mistake begins with, the file.

        Raises:
            PolicyError: it is no policy.

        >>> Policy.parse({"smallest_count": 3}, "site.yaml")
        Traceback (most recent call last):
        privacy.policy.PolicyError: site.yaml: smallest_count: found 3, expected a whole number of 10 or more: with \
fewer training patients the site takes no part, and smaller counts do not leave it; mend it
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise PolicyError(f"{where}: {_sentence(content, error)}") from None

    def rules_sha256(self) -> str:
        """The hash of what decides on how one analysis is done: of all rules but how long and how often."""
        rules = self.model_dump(mode="json", exclude={"valid_until": True, "privacy": {"total"}})
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def load(path: Path) -> tuple[Policy, str]:
    """A policy file, and the sha256 of its bytes.

    Raises:
        PolicyError: it cannot be read, or is no policy.
    """
    try:
        data = path.read_bytes()
        content = _Unambiguous(data.decode()).get_single_data()
    except OSError as error:
        raise PolicyError(f"{path}: found no file that can be read ({error.strerror}), expected a policy") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: found no UTF-8 text at byte {error.start}, expected a policy in YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise PolicyError(f"{path}: {place}found no YAML ({problem}), expected a policy; mend it") from error
    return Policy.parse(content, str(path)), hashlib.sha256(data).hexdigest()


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a policy file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema()}


class _Unambiguous(yaml.SafeLoader):
    """YAML in which a key stands once: of two, the second would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        met: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in met:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            met.add(str(key.value))
        return super().construct_mapping(node, deep)


def _sentence(content: object, error: ValidationError) -> str:
    """The key, what was found there, what was expected and what to do, of the first mistake."""
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # it explains a missing key
    path = [str(part) for part in first["loc"]]
    own = first.get("ctx", {}).get("error")
    if first["type"] == "value_error":
        return f"{'.'.join([*path, str(own)]) if path else own}; mend it"
    if not path:
        return f"found {_shown(content)}, expected keys such as tasks, models and privacy; mend it"
    model, entry, described = Policy, content, ""
    for part in path:
        fields: Mapping[str, Any] = model.model_fields if model is not None else {}
        if fields and part not in fields:
            return f"{'.'.join(path)}: found this key, expected one of {', '.join(fields)}; rename or remove it"
        described = fields[part].description if fields else described
        model = {"privacy": PrivacyRules, "per_analysis": Limit, "total": Limit}.get(part)  # type: ignore[assignment]
        number = re.fullmatch(r"\d+", part)
        if isinstance(entry, list) and number:
            entry = entry[int(part)]
        else:
            entry = entry.get(part) if isinstance(entry, dict) else None
    return f"{'.'.join(path)}: found {_shown(entry)}, expected {described}; mend it"


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]
