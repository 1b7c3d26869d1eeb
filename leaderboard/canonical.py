"""One spelling of a value as bytes, so that equal values have equal hashes on every machine.

Keys are sorted, floats are written as Python's shortest round-trip repr, text is UTF-8 and not escaped, NaN and
infinities do not exist, and the last byte is a newline. A record on disk is these bytes, so a reviewer reads a diff of
values and `sha256sum` needs nothing of ours.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

from pydantic import BaseModel


class RecordError(ValueError):
    """A record that cannot be trusted or written: one sentence with the file, the field and what to do."""


def canonical_json(value: Any) -> bytes:
    """Spell a JSON value or a pydantic model canonically.

    Args:
        value: what JSON can hold (dict with text keys, list, tuple, text, int, finite float, bool, None), or a model.

    Returns:
        UTF-8 bytes that end in a newline.

    Raises:
        RecordError: for a value JSON cannot hold, named by its path.

    >>> canonical_json({"b": (1.0, None), "a": "é"}).decode()
    '{\\n "a": "é",\\n "b": [\\n  1.0,\\n  null\\n ]\\n}\\n'
    >>> canonical_json({"loss": [0.5, float("nan")]})
    Traceback (most recent call last):
    leaderboard.canonical.RecordError: loss[1] is nan, which JSON cannot hold; leave it out or write null with a reason.
    """
    try:
        return _spelled(_plain(value, "", open_models=False))
    except ValueError:
        # Something inside a model; say where.
        return _spelled(_plain(value, "", open_models=True))


def sha256_of(value: Any) -> str:
    """The sha256 (64 hex digits) of a value's canonical spelling."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _spelled(plain: Any) -> bytes:
    """What `json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)` is, and a newline.

    Python's own encoder has no fast half for an indented text; this takes a third of its time.
    """
    pieces: list[str] = []
    _spell(plain, "\n", pieces.append)
    pieces.append("\n")
    return "".join(pieces).encode()


def _spell(value: Any, line: str, say: Callable[[str], None]) -> None:
    if isinstance(value, str):
        say(encode_basestring(value))
    elif isinstance(value, dict):
        _spell_dict(value, line, say)
    elif isinstance(value, list | tuple):
        _spell_list(value, line, say)
    elif value is None or isinstance(value, bool):
        say({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        say(int.__repr__(value))
    elif math.isfinite(value):
        say(float.__repr__(value))
    else:
        raise ValueError(f"{value} is not JSON")


def _spell_dict(value: dict[str, Any], line: str, say: Callable[[str], None]) -> None:
    inner = line + " "
    begin = "{" + inner
    for key in sorted(value):
        say(f"{begin}{encode_basestring(key)}: ")
        _spell(value[key], inner, say)
        begin = "," + inner
    say(line + "}" if value else "{}")


def _spell_list(value: list[Any] | tuple[Any, ...], line: str, say: Callable[[str], None]) -> None:
    inner = line + " "
    begin = "[" + inner
    for item in value:
        say(begin)
        _spell(item, inner, say)
        begin = "," + inner
    say(line + "]" if value else "[]")


def _plain(value: Any, path: str, *, open_models: bool) -> Any:
    """The value without models and tuples; what JSON cannot hold is refused by its path.

    Models are dumped by pydantic, fast and unchecked, or opened field by field (`open_models`).
    """
    if isinstance(value, BaseModel):
        if not open_models:
            return value.model_dump(by_alias=True)
        fields = type(value).model_fields.items()
        value = {field.alias or name: getattr(value, name) for name, field in fields}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise RecordError(f"{path or 'the value'} has the key {key!r}; keys are text.")
        return {
            key: _plain(item, f"{path}.{key}" if path else key, open_models=open_models) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]", open_models=open_models) for i, item in enumerate(value)]
    _refuse_odd(value, path or "the value")
    return value


def _refuse_odd(value: Any, path: str) -> None:
    """Refuse a single value that JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{path} is {value}, which JSON cannot hold; leave it out or write null with a reason.")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecordError(f"{path} is {value!r}, which is not text that UTF-8 can hold.") from None
    elif not (value is None or isinstance(value, bool | int | float)):
        raise RecordError(
            f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which JSON cannot hold; "
            "expected text, a number, true, false, null, a list or an object."
        )
