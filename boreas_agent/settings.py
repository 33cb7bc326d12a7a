"""The configuration of the agent: flag > environment > file > default.

Each layer is validated by itself before they are merged, so that a bad value is named by where it was
written (``--port``, ``AGENT_SERVER_PORT``, ``agent.yaml: server.port``), also where a stronger layer would have
hidden it. Nothing unknown is ignored: a misspelt setting that silently does nothing is found in an outage.
Plain pydantic models: pydantic-settings would read the process's own environment, cannot say which source a
bad value came from, and costs a third of a second at every start.
"""

from __future__ import annotations

import difflib
import reprlib
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from boreas_agent import strictyaml
from boreas_agent.errors import StartupError

DEFAULT_FILE = Path("/etc/boreas-agent/agent.yaml")
TRUSTED_BY_DEFAULT = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "169.254.0.0/16", "fe80::/10")

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "--work-dir": "agent.work_dir",
        "--host": "server.host",
        "--port": "server.port",
        "--log-level": "log.level",
        "--log-format": "log.format",
        "--trusted-network": "server.trusted_networks",
        "--tls-cert": "server.tls_cert",
        "--tls-key": "server.tls_key",
        "--tls-client-ca": "server.tls_client_ca",
        "--tls-client-san": "server.tls_client_sans",
        "--token-file": "server.token_file",
    }
)

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "AGENT_SERVER_HOST": "server.host",
        "AGENT_SERVER_PORT": "server.port",
        "AGENT_SERVER_TLS_CERT": "server.tls_cert",
        "AGENT_SERVER_TLS_KEY": "server.tls_key",
        "AGENT_SERVER_TLS_CLIENT_CA": "server.tls_client_ca",
        "AGENT_SERVER_TOKEN_FILE": "server.token_file",
        "AGENT_LOG_LEVEL": "log.level",
        "AGENT_LOG_FORMAT": "log.format",
        "AGENT_LOG_OUTPUT": "log.output",
        "AGENT_ID": "agent.id",
        "AGENT_HOSTNAME": "agent.hostname",
        "AGENT_WORK_DIR": "agent.work_dir",
        "AGENT_DOCKER_ENABLED": "agent.docker.enabled",
        "AGENT_DOCKER_SOCKET_PATH": "agent.docker.socket_path",
        "AGENT_DOCKER_REGISTRY": "agent.docker.registry",
        "AGENT_DOCKER_NETWORK_MODE": "agent.docker.network_mode",
        "AGENT_HEALTH_CHECK_INTERVAL": "agent.health.check_interval",
        "AGENT_HEALTH_TIMEOUT": "agent.health.timeout",
        "AGENT_HEALTH_RETRY_COUNT": "agent.health.retry_count",
        "AGENT_OPERATOR_URL": "agent.operator.url",
        "AGENT_OPERATOR_ADVERTISE_URL": "agent.operator.advertise_url",
    }
)
OUR_PREFIXES = ("AGENT_SERVER_", "AGENT_LOG_", "AGENT_DOCKER_", "AGENT_HEALTH_", "AGENT_OPERATOR_")
"""An unknown variable that begins like this is a misspelt setting. Other AGENT_ names (AGENT_NAME, AGENT_TOOLSDIRECTORY …) are
common among build and monitoring agents on the same machine and none of our business."""


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


_BYTES = TypeAdapter(ByteSize)
Text = Annotated[str, AfterValidator(_printable), Field(max_length=4096)]
AbsolutePath = Annotated[Text, AfterValidator(_absolute)]
OptionalPath = Annotated[Text, AfterValidator(_absolute_or_none)]
Seconds = Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=86400, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=1_000_000_000)]
HttpUrl = Annotated[Text, AfterValidator(_http_url)]
DiskShare = Annotated[Text, AfterValidator(_share_or_size)]
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


class Docker(Section):
    """The engine, and what containers get unless their spec says otherwise."""

    enabled: bool = True
    socket_path: AbsolutePath = "/var/run/docker.sock"
    registry: Text = ""
    network_mode: Annotated[Text, Field(min_length=1)] = "bridge"


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
    health: HealthDefaults = HealthDefaults()
    operator: Operator = Operator()
    node: Node = Node()
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


def load_settings(overrides: Mapping[str, object], environ: Mapping[str, str], default_file: Path = DEFAULT_FILE) -> Settings:
    """The settings in force; raises StartupError with one line that names what is wrong and where.

    ``overrides`` are command line flags by their own name (``--port``); None means not given. ``--config`` names the
    file, which must exist then; ``default_file`` is read where it exists.
    """
    given = {flag: value for flag, value in overrides.items() if value is not None and value != ()}
    file = given.pop("--config", None)
    layers = (
        _file_layer(Path(str(file)), required=True) if file is not None else _file_layer(default_file, required=False),
        _checked(_nested({ENVIRONMENT[name]: value for name, value in _ours(environ)}), {path: name for name, path in ENVIRONMENT.items()}),
        _checked(_nested({FLAGS[flag]: value for flag, value in given.items()}), {path: flag for flag, path in FLAGS.items()}),
    )
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merged(merged, layer)
    settings = Settings.model_validate(merged)
    _check_tls(settings.server)
    return settings


# --- the layers ----------------------------------------------------------------------------------


def _ours(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in sorted(environ.items()):
        if name in ENVIRONMENT:
            yield name, value
        elif name.startswith(OUR_PREFIXES):
            raise StartupError(f"cannot start: unknown environment variable {name}{_did_you_mean(name, ENVIRONMENT)}")


def _file_layer(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        data = strictyaml.loads(path.read_bytes())
    except FileNotFoundError:
        if required:
            raise StartupError(f"cannot start: the configuration file {path} does not exist") from None
        return {}
    except OSError as error:
        raise StartupError(f"cannot start: cannot read the configuration file {path}: {error.strerror}") from None
    except ValueError as error:
        raise StartupError(f"cannot start: the configuration file {path} is not valid YAML: {error}") from None
    if not isinstance(data, dict | None):
        raise StartupError(f"cannot start: the configuration file {path} must hold a mapping with server, log and agent")
    sections = _without_empty_sections(data or {}, Settings)
    return _checked(sections, {}, f"{path}: ")


def _without_empty_sections(data: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """``agent:`` with every line below it commented out is an empty section, not a null."""
    kept = {}
    for key, value in data.items():
        field = model.model_fields.get(key) if isinstance(key, str) else None
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, Section):
            if value is not None:
                kept[key] = _without_empty_sections(value, inner) if isinstance(value, dict) else value
        else:
            kept[key] = value
    return kept


def _nested(values: Mapping[str, object]) -> dict[str, Any]:
    """``{"server.port": 1}`` as ``{"server": {"port": 1}}``."""
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *sections, key = path.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = value
    return nested


def _merged(weaker: dict[str, Any], stronger: dict[str, Any]) -> dict[str, Any]:
    merged = dict(weaker)
    for key, value in stronger.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _check_tls(server: Server) -> None:
    """What belongs together may come from different layers, so it is looked at when they are one."""
    if bool(server.tls_cert) != bool(server.tls_key):
        given, missing = ("cert", "key") if server.tls_cert else ("key", "cert")
        raise StartupError(f"cannot start: server.tls_{given} (--tls-{given}) needs server.tls_{missing} (--tls-{missing}) beside it")
    if server.tls_client_ca and not server.tls_cert:
        raise StartupError(
            "cannot start: server.tls_client_ca (--tls-client-ca) needs --tls-cert and --tls-key: without TLS nobody can show a certificate"
        )
    if server.tls_client_sans and not server.tls_client_ca:
        raise StartupError(
            "cannot start: server.tls_client_sans (--tls-client-san) needs the CA beside it: server.tls_client_ca (--tls-client-ca)"
        )


# --- what is wrong, in one line ------------------------------------------------------------------


def _checked(layer: dict[str, Any], names: Mapping[str, str], prefix: str = "") -> dict[str, Any]:
    """``layer`` if it is valid by itself; ``names`` says how its writer calls each setting."""
    try:
        Settings.model_validate(layer)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        raise StartupError("cannot start: " + "; ".join(_sentence(fault, names, prefix) for fault in faults)) from None
    return layer


_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text (put it in quotes)",
    "model_type": "must be a section with settings in it",
    "tuple_type": "must be a list",
}


def _sentence(fault: Any, names: Mapping[str, str], prefix: str) -> str:
    # integers in a location are positions in a list; the union's member name is of no use to the reader
    path = ".".join(part for part in fault["loc"] if isinstance(part, str) and part != "[key]")
    if fault["type"] in {"extra_forbidden", "invalid_key"}:
        siblings = [key for key in _every_key(Settings) if key.count(".") == path.count(".")]
        return f"{prefix}unknown key {path or fault['input']!s}{_did_you_mean(path, siblings)}"
    words = _WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be"))
    given = (
        "a mapping" if isinstance(fault["input"], dict) else "a list" if isinstance(fault["input"], list) else reprlib.repr(fault["input"])
    )
    but = "" if fault["type"] == "value_error" else f", not {given}"  # short: aliases can make a value of a few lines unfold to gigabytes
    return f"{prefix}{names.get(path, path)} {words}{but}"


def _every_key(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        keys.append(f"{prefix}{name}")
        if isinstance(inner, type) and issubclass(inner, Section):
            keys += _every_key(inner, f"{prefix}{name}.")
    return keys


def _did_you_mean(name: str, known: Mapping[str, str] | list[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""
