"""Runs federations and kills them: `python killed.py JOBS`, where `test_resume` says what to run and when to kill.

Everything is loaded once; each attempt is a process of its own, forked from here, that ends by SIGKILL.
"""

import json
import os
import pickle
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from flwr.app import Message

from fedcore.engines import inline
from fedcore.federation import FederationRequest, run_federation
from fedcore.samples import SiteSamples


class Job(NamedTuple):
    """A federation and its deaths.

    Attributes:
        sites: their samples.
        request: what to train.
        folder: of its checkpoint.
        moments: an attempt each: killed when a site has answered so many messages, or after so many seconds (float).
        result: where the result of the last attempt is written, which is left alone.
    """

    sites: list[SiteSamples]
    request: FederationRequest
    folder: Path
    moments: tuple[int | float, ...]
    result: Path


class Deadly(inline.InlineGrid):
    """Kills its process when sites have answered so many messages, and nobody has heard of the last."""

    left = -1

    def _delivered(self, message: Message) -> Message:
        reply = super()._delivered(message)
        Deadly.left -= 1
        if Deadly.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply


def attempt(job: Job, moment: int | float | None) -> str:
    """One attempt in a process of its own: `killed`, `ended` or `failed`."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            Deadly.left = moment if isinstance(moment, int) else -1
            result = run_federation(job.sites, job.request, folder=job.folder)
            if moment is None:
                job.result.write_bytes(pickle.dumps(result))
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    if isinstance(moment, float):
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else "failed" if os.WEXITSTATUS(status) else "ended"


if __name__ == "__main__":
    inline.InlineGrid = Deadly  # type: ignore[misc]
    path = Path(sys.argv[1])
    sys.path.insert(0, str(path.parent))
    jobs = [Job(*job) for job in pickle.loads(path.read_bytes())]
    sys.stdout.write(json.dumps([[attempt(job, moment) for moment in (*job.moments, None)] for job in jobs]))
