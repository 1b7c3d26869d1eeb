"""Where Flower's inner workings are touched: they change with every minor release."""

import re
from pathlib import Path

import fedcore

ROOM = Path(fedcore.__file__).parent
PUBLIC = r"flwr\.(app|clientapp|serverapp|clientapp\.typing|serverapp\.strategy)"


def test_only_the_engines_reach_below_flowers_public_packages() -> None:
    reaching = {
        path.relative_to(ROOM).as_posix()
        for path in ROOM.rglob("*.py")
        for name in re.findall(r"^\s*(?:from|import) (flwr[\w.]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if not re.fullmatch(PUBLIC, name)
    }
    assert reaching and all(path.startswith("engines/") for path in reaching), reaching
