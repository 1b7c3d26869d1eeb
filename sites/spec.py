"""How a user writes a site: `NAME=KIND[,OPTION...]:PATH`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sites.errors import InputError
from sites.exports.export import Export

GENERAL_OPTIONS = {
    "by": "one client site for each value of a group, e.g. by=hospital",
    "demo": "the records say `demo`: openly published demonstration data",
    "parts": "split into this many client sites at random; with skew=, a tool for studies",
    "skew": "with parts=: Dirichlet skew, quantity@ALPHA or GROUP@ALPHA, e.g. skew=quantity@0.5",
}
"""Options that every kind understands; an export's own are in `Export.options`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SiteSpec:
    """A site as the user wrote it.

    Attributes:
        name: What records call it.
        kind: The export kind.
        options: After the kind; flags map to "".
        path: The export.
    """

    name: str
    kind: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, *, named: bool = True) -> "SiteSpec":
        """Read `NAME=KIND[,OPTION[=VALUE]...]:PATH`, or without `NAME=` where `named` is false.

        The path begins behind the first colon; `~` is expanded here, so that no quoting is needed in any shell.

        Raises:
            InputError: It is not written like that.

        >>> spec = SiteSpec.parse("boston=mimic4,by=unit:/data/mimiciv")
        >>> spec.name, spec.kind, dict(spec.options), str(spec.path)
        ('boston', 'mimic4', {'by': 'unit'}, '/data/mimiciv')
        """
        wanted = "NAME=KIND[,OPTION...]:PATH, e.g. boston=mimic4:/data/mimiciv" if named else "KIND[,OPTION...]:PATH"
        head, colon, path = text.partition(":")
        if not colon or not path.strip():
            raise InputError(f"found the site {text!r}, expected {wanted}; add the colon and the path")
        name, equals, rest = head.partition("=")
        if named:
            if not equals or "," in name:
                raise InputError(f"found the site {text!r}, expected {wanted}; begin with a name and an equals sign")
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"found the site name {name!r}, expected letters, digits, '.', '_' and '-'; choose another name"
                )
            head = rest
        kind, *given = head.split(",")
        if not re.fullmatch(r"[A-Za-z_][\w.]*", kind):
            raise InputError(f"found the export kind {kind!r} in {text!r}, expected {wanted}; correct the kind")
        options: dict[str, str] = {}
        for item in given:
            key, _, value = item.partition("=")
            if not key or key in options:
                raise InputError(f"found the option {item!r} in {text!r}, expected {wanted}, each option once")
            options[key] = value
        return cls(name if named else kind, kind, Path(path).expanduser(), options)

    def __str__(self) -> str:
        """As the user would write it."""
        return f"{self.name}={self.what}"

    @property
    def what(self) -> str:
        """Without the name: `KIND[,OPTION...]:PATH`."""
        written = [key + (f"={value}" if value else "") for key, value in self.options.items()]
        return f"{','.join([self.kind, *written])}:{self.path}"

    def check_options(self, export: Export) -> None:
        """Raise an InputError if an option is known to neither the project nor this kind."""
        for key, value in self.options.items():
            if key not in GENERAL_OPTIONS and key not in export.options:
                known = sorted({*GENERAL_OPTIONS, *export.options})
                raise InputError(
                    f"found the option {key!r} for the site {self.name}, expected one of {', '.join(known)}; correct it"
                )
            if key == "by" and value not in export.groups:
                known = list(export.groups)
                raise InputError(
                    f"found by={value} for the site {self.name}, expected "
                    + (
                        f"one of {', '.join(known)}; choose one of these"
                        if known
                        else "no by=: this kind has no groups"
                    )
                )

    def reading_options(self) -> dict[str, str]:
        """The options that change what is read: all but those that divide a site into several."""
        return {key: value for key, value in self.options.items() if key not in ("by", "parts", "skew")}
