"""Whether there is a Ray at an address: asked once, answered within seconds, where Ray itself would try for minutes."""

import re

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

ANSWERS_WITHIN = 10.0  # seconds


def reached(address: str) -> str:
    """The HOST:PORT of the cluster at `address`, HOST:PORT or `auto`, which answers and accepts this user's token.

    Raises ValueError for what is no address of a cluster or refuses the token, ConnectionError where nothing answers.
    """
    if address != "auto" and not re.fullmatch(r"[^\s/:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address):
        raise ValueError(
            f"on a machine of the cluster an address is auto or HOST:PORT, got {address}; "
            "from elsewhere: idenctl study submit FILE --address http://HOST:8265"
        )
    found: str = canonicalize_bootstrap_address_or_die(address)
    named = found if address == "auto" else address
    try:
        answer = NodeInfoGcsServiceStub(init_grpc_channel(found)).CheckAlive(
            CheckAliveRequest(), timeout=ANSWERS_WITHIN
        )
    except grpc.RpcError as error:
        raise _reason(named, error.code()) from None
    same_version(named, answer.ray_version)
    return found


def same_version(address: str, found: str) -> None:
    """Raise ValueError unless the cluster at `address` runs this program's version of Ray."""
    if found != ray.__version__:
        raise ValueError(
            f"a cluster and who uses it run one version of Ray, {address} has {found}, here is {ray.__version__}; "
            "install the same from constraints.txt"
        )


def token_refused(address: str) -> ValueError:
    """What is said of a token that the cluster at `address` does not accept; never the token."""
    return ValueError(
        f"the cluster at {address} refuses this user's token; copy the token from the machine that started it"
    )


def _reason(address: str, code: grpc.StatusCode) -> Exception:
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return token_refused(address)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return ValueError(f"what answers at {address} is no Ray cluster; give the port of its GCS, by default 6379")
    return ConnectionError(f"no Ray answers at {address}; is the cluster up, and the port that of its GCS (6379)?")
