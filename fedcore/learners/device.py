"""Where networks are trained: `FEDWARD_DEVICE`, which `bench run --device` sets, is cpu, cuda or auto.

The device is provenance, not identity: a GPU sums in another order, so its results may differ in the last bits.
"""

import os

import torch

from sites.errors import InputError

VARIABLE = "FEDWARD_DEVICE"
NAMES = ("auto", "cpu", "cuda")


def device() -> torch.device:
    """The device asked for; `auto`, the default, is a GPU where there is one.

    Raises:
        InputError: another name, or a GPU is asked for and there is none.
    """
    name = os.environ.get(VARIABLE, "auto")
    if name not in NAMES:
        raise InputError(f"{VARIABLE}: found {name!r}, expected one of {', '.join(NAMES)}")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise InputError("found no GPU that torch can use; expected one for device cuda; choose auto or cpu")
    return torch.device("cuda" if present and name != "cpu" else "cpu")
