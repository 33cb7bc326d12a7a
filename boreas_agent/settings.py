"""What the agent can be told: the sections of its configuration, what may stand in them, and what holds where nothing does."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

TRUSTED_BY_DEFAULT = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "169.254.0.0/16", "fe80::/10")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


def _absolute(path: str) -> str:
    if not path:
        raise ValueError("must not be empty")
    return str(Path(path).absolute())


def _absolute_or_none(path: str) -> str:
    return _absolute(path) if path else ""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _not_bool(value: object) -> object:
    """pydantic takes True for the number 1; ``port: yes`` is a mistake, not port 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004  # pydantic reports ValueErrors only
    return value


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be a network like 10.0.0.0/8, not {value!r}")  # noqa: TRY004
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"must be a network like 10.0.0.0/8: {error}") from None


def _http_url(url: str) -> str:
    """An address to which a path is appended, so it has no query; empty stands for 'not given'."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or " " in url:
        raise ValueError("must be an address like http://operator-pm:8080")
    if "?" in url or "#" in url:
        raise ValueError("must be an address without a query, like http://operator-pm:8080")
    return url.rstrip("/")


def _share_or_size(text: str) -> str:
    """``10%`` of the disk, or a size like ``5GiB`` or ``5Gi``."""
    with suppress(ValueError):
        if (0 <= float(text.removesuffix("%")) <= 100) if text.endswith("%") else _bytes(text) >= 0:
            return text
    raise ValueError("must be a share of the disk like 10% or a size like 5GiB (0% for no warning)")


def _bytes(size: str) -> int:
    return _BYTES.validate_python(f"{size}B" if size.endswith("i") else size)


def _size(value: object) -> int:
    """A whole number of bytes, or a size like ``5GiB`` or ``5Gi``."""
    if isinstance(value, str):
        with suppress(ValueError):
            return _bytes(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a size like 5GiB")


_BYTES = TypeAdapter(ByteSize)
Text = Annotated[str, AfterValidator(_printable), Field(max_length=4096)]
AbsolutePath = Annotated[Text, AfterValidator(_absolute)]
OptionalPath = Annotated[Text, AfterValidator(_absolute_or_none)]
Seconds = Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=86400, allow_inf_nan=False)]
Age = Annotated[float, BeforeValidator(_not_bool), Field(ge=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Percent = Annotated[float, BeforeValidator(_not_bool), Field(ge=0, le=100, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=1_000_000_000)]
HttpUrl = Annotated[Text, AfterValidator(_http_url)]
DiskShare = Annotated[Text, AfterValidator(_share_or_size)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0, le=2**62)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Section(BaseModel):
    """Base of all sections: nothing unknown, nothing changed later, defaults checked like everything else."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Server(Section):
    """Where the API listens and who may change something through it; an empty path means that there is no such file."""

    host: Annotated[Text, Field(min_length=1)] = "0.0.0.0"
    port: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=65535)] = 8081
    trusted_networks: tuple[Network, ...] = Field(default_factory=lambda: tuple(ip_network(text) for text in TRUSTED_BY_DEFAULT))
    tls_cert: OptionalPath = ""
    tls_key: OptionalPath = ""
    tls_client_ca: OptionalPath = ""
    tls_client_sans: tuple[Annotated[Text, Field(min_length=1)], ...] = ()
    token_file: OptionalPath = ""


class Log(Section):
    """``output`` is ``stdout``, ``stderr`` or the path of a file."""

    level: Annotated[Literal["debug", "info", "warning", "warn", "error"], BeforeValidator(_lower)] = "info"
    format: Annotated[Literal["json", "text"], BeforeValidator(_lower)] = "json"
    output: Annotated[Text, Field(min_length=1)] = "stdout"


class ImageGc(Section):
    """Images that the agent has pulled and that nobody needs are removed: kubelet's words, with ages in seconds of being needed by nobody.

    ``max_age`` 0: only when the disk is fuller than ``high_threshold_percent``, and then until ``low_threshold_percent`` is left.
    """

    enabled: bool = True
    interval: Seconds = 300.0
    min_age: Age = 120.0
    max_age: Age = 0.0
    high_threshold_percent: Percent = 85.0
    low_threshold_percent: Percent = 80.0

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if self.low_threshold_percent >= self.high_threshold_percent:
            raise ValueError(f"low_threshold_percent must be below high_threshold_percent, {self.high_threshold_percent:g}")
        return self


class Docker(Section):
    """The engine, and what containers get unless their spec says otherwise."""

    enabled: bool = True
    socket_path: AbsolutePath = "/var/run/docker.sock"
    registry: Text = ""
    network_mode: Annotated[Text, Field(min_length=1)] = "bridge"
    auth_file: OptionalPath = ""
    pull_stall_timeout: Seconds = 120.0
    image_gc: ImageGc = ImageGc()


class Process(Section):
    """``require_cgroups``: what has limits that this machine cannot set is not started, instead of running without them."""

    require_cgroups: bool = True


class HealthDefaults(Section):
    """What probes use where their spec gives no numbers of its own, in seconds."""

    check_interval: Seconds = 30.0
    timeout: Seconds = 10.0
    retry_count: Count = 3


class Operator(Section):
    """The platform's controller; an empty url means the agent does not register itself. ``interval``: seconds between two times."""

    url: HttpUrl = ""
    advertise_url: HttpUrl = ""
    interval: Annotated[float, BeforeValidator(_not_bool), Field(ge=1, le=3600, allow_inf_nan=False)] = 60.0


class Node(Section):
    """What is observed of the machine itself: every ``sample_interval`` seconds, and from which free space on the disk counts as low."""

    sample_interval: Annotated[float, BeforeValidator(_not_bool), Field(ge=1, le=3600, allow_inf_nan=False)] = 10.0
    disk_low: DiskShare = "10%"

    def low_bytes(self, total: int) -> int:
        """``disk_low`` of a disk of ``total`` bytes."""
        if self.disk_low.endswith("%"):
            return int(total * float(self.disk_low.removesuffix("%")) / 100)
        return _bytes(self.disk_low)


class Artifacts(Section):
    """What apps may bring with them. ``file_roots``: below them is what ``file:`` may name; ``header_roots``: what ``headers_from`` may.

    ``min_free_bytes`` of the work dir's disk are left to others; ``cache_bytes`` are kept at most of what no release needs.
    ``timeout``: seconds that fetching one may take.
    """

    file_roots: tuple[AbsolutePath, ...] = ("/var/lib/boreas-artifacts",)
    header_roots: tuple[AbsolutePath, ...] = ("/etc/boreas-agent/artifact-headers",)
    max_bytes: Size = 8 * 1024**3
    max_unpacked_bytes: Size = 16 * 1024**3
    min_free_bytes: Size = 256 * 1024**2
    cache_bytes: Size = 2 * 1024**3
    timeout: Seconds = 3600.0


class History(Section):
    """How much history is kept per table: the newest ``rows``, nothing older than ``days``."""

    rows: Count = 200_000
    days: Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=36500, allow_inf_nan=False)] = 365.0


class Agent(Section):
    """This node. ``id`` and ``hostname`` are names for people: ownership goes by the UUID in the work dir."""

    hostname: Annotated[Text, AfterValidator(lambda name: name or socket.gethostname())] = ""
    id: Text = ""
    work_dir: AbsolutePath = "/var/lib/boreas-agent"
    resync_interval: Seconds = 30.0
    docker: Docker = Docker()
    process: Process = Process()
    health: HealthDefaults = HealthDefaults()
    operator: Operator = Operator()
    node: Node = Node()
    artifacts: Artifacts = Artifacts()
    history: History = History()

    @field_validator("id")
    @classmethod
    def _hostname_by_default(cls, name: str, info: ValidationInfo) -> str:
        return name or str(info.data.get("hostname", ""))


class Settings(Section):
    """Everything the agent can be told; immutable."""

    server: Server = Server()
    log: Log = Log()
    agent: Agent = Agent()
