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
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from boreas_agent import strictyaml
from boreas_agent.errors import StartupError
from boreas_agent.settings import Section, Server, Settings

DEFAULT_FILE = Path("/etc/boreas-agent/agent.yaml")

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
        "AGENT_DOCKER_AUTH_FILE": "agent.docker.auth_file",
        "AGENT_HEALTH_CHECK_INTERVAL": "agent.health.check_interval",
        "AGENT_HEALTH_TIMEOUT": "agent.health.timeout",
        "AGENT_HEALTH_RETRY_COUNT": "agent.health.retry_count",
        "AGENT_OPERATOR_URL": "agent.operator.url",
        "AGENT_OPERATOR_ADVERTISE_URL": "agent.operator.advertise_url",
    }
)
OUR_PREFIXES = ("AGENT_SERVER_", "AGENT_LOG_", "AGENT_DOCKER_", "AGENT_HEALTH_", "AGENT_OPERATOR_")
"""An unknown variable that begins like this is a misspelt setting, and so is one that nearly has a setting's name (AGENT_WORKDIR).
Other AGENT_ names (AGENT_NAME, AGENT_TOOLSDIRECTORY …) are common among build and monitoring agents on the same machine and none
of our business."""
NEARLY = 0.9


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
        elif name.startswith(OUR_PREFIXES) or (name.startswith("AGENT_") and difflib.get_close_matches(name, ENVIRONMENT, 1, NEARLY)):
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
    "too_short": "must not be empty",
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
    but = (
        "" if fault["type"] in {"value_error", "too_short"} else f", not {given}"
    )  # short: aliases can make a value of a few lines unfold to gigabytes
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
