"""Ray's client for jobs, with a limit to every wait and the remedy in every error."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from cluster.job_book import entries
from cluster.nodes import bundle_of
from cluster.stopped import Stopped
from configs.bundles import Bundle

SECONDS_PER_REQUEST = 60.0  # of silence; an upload may take longer
SECONDS_OF_SILENCE = 60.0  # in a job's log, before the cluster is asked whether the job still runs
MOST_NODES = 10_000  # Ray's own limit
SECONDS_TO_END = 60.0  # from the end of a job's log to its status

_TOO_LARGE = ("status code 413", "exceeds the maximum size")  # the dashboard's limit, and that of Ray's storage

for _module, _level in (  # each of which tells of addresses and of every file that is left out, at levels of its own
    ("dashboard.modules.dashboard_sdk", logging.WARNING),
    ("dashboard.modules.job.sdk", logging.WARNING),
    ("_private.runtime_env.packaging", logging.WARNING),
    ("_private.runtime_env.working_dir", logging.ERROR),
):
    logging.getLogger(f"ray.{_module}").setLevel(_level)


class Unreachable(ValueError):
    """A cluster does not answer, or not to us."""


class JobClient(JobSubmissionClient):
    """Ray's client. The address is `--address`, RAY_API_SERVER_ADDRESS, RAY_ADDRESS or a cluster of this machine's."""

    def _do_request(self, method: str, endpoint: str, **rest: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=SECONDS_PER_REQUEST, **rest)

    @classmethod
    def connected(cls, address: str | None) -> JobClient:
        """A client of a cluster that answers. Raises Unreachable."""
        if address is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = address  # which Ray would prefer to what it is given
        with _remedies():
            return cls()

    def submit(self, **request: Any) -> None:
        """What Ray's client calls `submit_job`. Raises Unreachable, for a folder that is too large to be sent too."""
        with _remedies():
            try:
                self.submit_job(**request)
            except RuntimeError as error:
                if not any(words in str(error) for words in _TOO_LARGE):
                    raise
                raise Unreachable(
                    f"{request['runtime_env']['working_dir']} is too large to be sent to the cluster: name in "
                    ".rayignore (lines as in .gitignore) what the job does not need, and give large data by path"
                ) from error

    def of_run(self, folder: Path) -> list[JobDetails]:
        """The jobs that were submitted for a run's folder, or have worked in it, the oldest first."""
        worked = {entry.submission for entry in entries(folder)} - {None}
        with _remedies():
            jobs = self.list_jobs()
        own = [job for job in jobs if job.submission_id in worked or _output(job) == str(folder)]
        return sorted(own, key=lambda job: job.start_time or 0)

    def nodes(self) -> list[Bundle]:
        """What each node of the cluster has, whoever uses it. Raises Unreachable."""
        with _remedies():
            try:
                found = list_nodes(
                    self.get_address(),
                    filters=[("state", "=", "ALIVE")],
                    limit=MOST_NODES,
                    timeout=int(SECONDS_PER_REQUEST),
                )
            except RayStateApiException as error:
                raise Unreachable(f"the cluster does not say what nodes it has: {error}") from error
        return [bundle_of(node.resources_total) for node in found]

    def follow(self, job_id: str) -> JobDetails:
        """Print a job's log until it ends. Ctrl-C raises Stopped, and the job goes on."""
        try:
            with _remedies():
                asyncio.run(self._print_log(job_id))
                return self._ended(job_id)
        except KeyboardInterrupt:
            raise Stopped(f"\n{job_id} goes on\n{how_to_watch(job_id)}") from None
        except Unreachable as error:
            raise Unreachable(f"{error}\n{job_id} may go on\n{how_to_watch(job_id)}") from error

    async def _print_log(self, job_id: str) -> None:
        chunks = self.tail_job_logs(job_id)
        while True:
            following = asyncio.ensure_future(anext(chunks, None))
            while not following.done():
                await asyncio.wait({following}, timeout=SECONDS_OF_SILENCE)
                if not following.done():
                    self.get_job_status(job_id)  # raises where nobody is there any more
            if (chunk := following.result()) is None:
                return
            print(chunk, end="", flush=True)

    def _ended(self, job_id: str) -> JobDetails:
        until = time.monotonic() + SECONDS_TO_END
        while not (found := self.get_job_info(job_id)).status.is_terminal():
            if time.monotonic() > until:
                raise Unreachable("the job's log has ended, but the job has not")
            time.sleep(0.5)
        return found


def _output(job: JobDetails) -> str | None:
    """The run's folder, of a job of `caliber submit`."""
    return (job.metadata or {}).get("output")


def how_to_watch(job_id: str) -> str:
    """What to do with a job that runs."""
    return f"  watch it:  ray job logs --follow {job_id}\n  stop it:   ray job stop {job_id}"


@contextmanager
def _remedies() -> Iterator[None]:
    """Raises Unreachable for what Ray's client raises."""
    try:
        yield
    except AuthenticationError as error:
        raise Unreachable(
            f"the cluster wants its token ({str(error).splitlines()[0]}): set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN "
            "to what `ray get-auth-token` prints on the head node"
        ) from error
    except (FileNotFoundError, PermissionError):  # of what was to be sent
        raise
    except OSError as error:  # those of requests, too
        raise Unreachable(
            f"{error} Start a cluster (ray start --head), or name one: --address http://HEAD-NODE:8265, or RAY_ADDRESS"
        ) from error
    except RuntimeError as error:  # any other answer than the one that was asked for
        raise Unreachable(f"the cluster answered: {error}") from error
