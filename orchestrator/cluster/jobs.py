"""A study as a Ray job: sent to a cluster, followed, looked at and stopped over its dashboard's address."""

import asyncio
import logging
import os
import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster import token

# Read by Ray when it is imported.
os.environ[token.MODE] = "token"

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from orchestrator.cluster.address import ANSWERS_WITHIN, same_version, token_refused

STUDY = "idenctl_study"  # a job's metadata: the study that it runs
STOPS_WITHIN = 120  # seconds for a stopped run to say what it has, then it is killed
# Read by the process that Ray starts a job with: a study saves on SIGINT, and has three seconds unless told.
STOPPING = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOPS_WITHIN)}
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
AGAIN = 2.0  # seconds between two looks at a job
LOST_FOR = 60.0  # seconds without an answer until a cluster counts as gone


@dataclass(frozen=True)
class Job:
    """A study's job on a cluster."""

    job_id: str
    study: str
    state: str  # PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED
    message: str
    exit_code: int | None  # of the run, where it ended by itself
    started: float | None  # seconds since 1970
    ended: float | None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return bool(JobStatus(self.state).is_terminal())

    @property
    def exit_status(self) -> int:
        """The run's own exit status; 130 where it was stopped, 1 where it never got as far or was killed."""
        if self.state == JobStatus.STOPPED:
            return 130
        if self.state == JobStatus.SUCCEEDED:
            return 0
        return self.exit_code if self.exit_code in (1, 2, 130) else 1


class _Client(JobSubmissionClient):
    """Ray's client, which else waits without end for who does not answer."""

    def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
        try:
            return super()._do_request(method, endpoint, timeout=ANSWERS_WITHIN, **given)
        except requests.RequestException as error:
            raise ConnectionError(f"{self._address} does not answer ({type(error).__name__}); try again") from None

    def ray_version(self) -> str:
        return str(self._do_request("GET", "/api/version").json()["ray_version"])


class Jobs:
    """The jobs of a cluster, by the address of its dashboard: http://HOST:8265.

    Raises ValueError for another address or a token that is refused, ConnectionError where nothing answers.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"a job is sent to the cluster's dashboard, http://HOST:8265, got {address}")
        token.for_cluster()
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # which would silently win over the address given
            os.environ.pop(name, None)
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.address = address.rstrip("/")
        try:
            self._client = _Client(self.address)
            version = self._client.ray_version()
        except AuthenticationError:
            raise token_refused(self.address) from None
        except ConnectionError:
            raise ConnectionError(
                f"nothing answers at {self.address}; is the cluster up, and its dashboard forwarded to this machine?"
            ) from None
        except (RuntimeError, ValueError, KeyError, TypeError, requests.RequestException):
            raise ValueError(
                f"what answers at {self.address} is no Ray dashboard; give its address, such as http://HOST:8265"
            ) from None
        same_version(self.address, version)

    def by_study(self) -> dict[str, list[Job]]:
        """The jobs of each study that was submitted, the latest last."""
        found: dict[str, list[Job]] = defaultdict(list)
        for each in sorted(self._client.list_jobs(), key=lambda each: each.start_time or 0):
            if study := (each.metadata or {}).get(STUDY):
                found[study].append(_job(each))
        return dict(found)

    def submit(self, study: str, command: Sequence[str], folder: Path) -> Job:
        """Run the command on the cluster's head, in a copy of the folder. Raises ValueError where the study runs."""
        earlier = self.by_study().get(study, [])
        running = [job for job in earlier if not job.over]
        if running:
            raise ValueError(f"a study runs once at a time, {study} is {self.named(running[-1])}; {self.next(study)}")
        numbers = [int(number) for job in earlier if (number := job.job_id.rpartition("-")[2]).isdecimal()]
        job_id = f"{study}-{max(numbers, default=0) + 1}"
        try:
            self._client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=job_id,
                runtime_env={"working_dir": str(folder), "env_vars": STOPPING},
                metadata={STUDY: study},
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise ConnectionError(f"the cluster at {self.address} did not take the job: {error}") from None
            raise ValueError(f"somebody has just submitted {study} as {job_id}; {self.next(study)}") from None
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        """How a job is now."""
        return _job(self._client.get_job_info(job_id))

    def follow(self, job: Job, say: Callable[[str], None]) -> Job:
        """Pass on what the job prints until it ends. Raises ConnectionError when the cluster is gone for a minute."""
        said, lost = 0, 0.0

        async def read() -> None:
            nonlocal said, lost
            seen = 0  # a log is read from its start, again when the connection was lost
            async for text in self._client.tail_job_logs(job.job_id):
                seen, lost = seen + len(text), 0.0
                if seen > said:
                    say(text[said - seen :])
                    said = seen

        while True:
            try:
                asyncio.run(read())
                if (found := self.job(job.job_id)).over:
                    return found
            except (RuntimeError, OSError, aiohttp.ClientError) as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > LOST_FOR:
                    raise ConnectionError(
                        f"{self.address} no longer answers ({type(error).__name__}); its jobs go on if it does"
                    ) from None
            time.sleep(AGAIN)

    def stop(self, job: Job) -> tuple[Job, str]:
        """Stop a job as Ctrl-C does, and wait for its end; gives how it ended, and what it said meanwhile."""
        before = len(self._client.get_job_logs(job.job_id))
        self._client.stop_job(job.job_id)
        ends = time.monotonic() + STOPS_WITHIN + LOST_FOR
        while not (found := self.job(job.job_id)).over:
            if time.monotonic() > ends:
                raise ConnectionError(
                    f"{job.job_id} has not ended {STOPS_WITHIN:.0f} s after it was told to; look again"
                )
            time.sleep(AGAIN / 4)
        return found, self._client.get_job_logs(job.job_id)[before:]

    def named(self, job: Job) -> str:
        """The job in a few words."""
        return f"job {job.job_id} ({job.state.lower()}) at {self.address}"

    def next(self, study: str) -> str:
        """How to come back to a study's job."""
        return (
            f"next: idenctl study status {study} --address {self.address}, "
            f"or: idenctl study stop {study} --address {self.address}"
        )


def _job(found: JobDetails) -> Job:
    return Job(
        found.submission_id or "",
        (found.metadata or {}).get(STUDY, ""),
        JobStatus(found.status).value,
        (found.message or "").strip(),
        found.driver_exit_code,
        found.start_time and found.start_time / 1000,
        found.end_time and found.end_time / 1000,
    )
