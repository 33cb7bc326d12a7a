"""Settings: flag > environment > file > default, and one clear line for everything that is wrong."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from boreas_agent.configuration import ENVIRONMENT, FLAGS, load_settings
from boreas_agent.errors import StartupError
from boreas_agent.settings import Settings

PLATFORM_FILE = """
server: {host: 0.0.0.0, port: 8081}
log:    {level: info, format: json, output: stdout}
agent:
  id: pm-node-1
  hostname: pm-node-1.example.com
  work_dir: /var/lib/boreas-agent
  docker: {enabled: true, socket_path: /var/run/docker.sock, registry: "", network_mode: bridge}
  health: {check_interval: 30, timeout: 10, retry_count: 3}
  operator: {url: "http://operator-pm:8080", advertise_url: "http://pm-node-1:8081"}
"""


@pytest.fixture
def load(tmp_path: Path):
    """Load settings from a file's text, an environment and flags."""

    def loader(text: str | None = None, environ: Mapping[str, str] | None = None, **flags: object) -> Settings:
        file = tmp_path / "agent.yaml"
        if text is not None:
            file.write_text(text)
        given = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
        return load_settings(given, environ or {}, file)

    return loader


def value_at(settings: Settings, path: str) -> object:
    """``server.port`` of the settings."""
    found: object = settings
    for name in path.split("."):
        found = getattr(found, name)
    return found


def test_without_anything_the_documented_defaults_hold(load):
    settings = load()
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 8081)
    assert settings.agent.work_dir == "/var/lib/boreas-agent"
    assert (settings.log.level, settings.log.format, settings.log.output) == ("info", "json", "stdout")
    assert settings.agent.hostname == settings.agent.id == socket.gethostname()
    assert ip_network("127.0.0.0/8") in settings.server.trusted_networks
    assert ip_network("fe80::/10") in settings.server.trusted_networks
    assert ip_network("0.0.0.0/0") not in settings.server.trusted_networks


def test_the_platforms_existing_file_works_unchanged(load):
    settings = load(PLATFORM_FILE)
    assert settings.agent.id == "pm-node-1"
    assert settings.agent.operator.advertise_url == "http://pm-node-1:8081"
    assert settings.agent.health.retry_count == 3


def test_the_shipped_example_file_shows_the_defaults():
    example = Path(__file__).parents[2] / "deploy" / "agent.yaml"
    assert load_settings({"--config": str(example)}, {}) == load_settings({}, {}, Path("/nonexistent"))


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(load):
    text = "server: {port: 1001, host: file}\nlog: {level: error, format: text}"
    environ = {"AGENT_SERVER_PORT": "1002", "AGENT_SERVER_HOST": "environment"}
    settings = load(text, environ, port="1003")
    assert settings.server.port == 1003
    assert settings.server.host == "environment"
    assert settings.log.level == "error"
    assert settings.log.output == "stdout"


SAMPLES = {
    "server.port": "9001",
    "log.level": "debug",
    "log.format": "text",
    "agent.docker.enabled": "false",
    "agent.health.retry_count": "9",
}
SAMPLES |= {"agent.operator.url": "https://operator-pm:8443/base", "agent.operator.advertise_url": "http://pm-node-1:8081"}
SAMPLES |= {"agent.health.check_interval": "4.5", "agent.health.timeout": "2", "agent.work_dir": "/w", "agent.docker.socket_path": "/s"}
SAMPLES |= {"agent.docker.auth_file": "/auth.json"}
SAMPLES |= {f"server.{name}": f"/{name}" for name in ("tls_cert", "tls_key", "tls_client_ca", "token_file")}
PAIR = "server: {tls_cert: /c, tls_key: /k}"


@pytest.mark.parametrize(("name", "path"), ENVIRONMENT.items())
def test_every_documented_environment_variable_sets_its_setting(load, name, path):
    text = SAMPLES.get(path, "some-text")
    assert value_at(load(PAIR, environ={name: text}), path) == yaml.safe_load(text)


@pytest.mark.parametrize(("flag", "path"), [pair for pair in FLAGS.items() if pair[0] not in {"--trusted-network", "--tls-client-san"}])
def test_every_flag_sets_its_setting(load, flag, path):
    text = SAMPLES.get(path, "some-text")
    assert value_at(load(PAIR, **{flag.strip("-"): text}), path) == yaml.safe_load(text)


def test_trusted_networks_given_as_flags_replace_those_of_the_file(load):
    text = "server: {trusted_networks: [10.0.0.0/8, 'fd00::/8']}"
    assert load(text).server.trusted_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert load(text, trusted_network=("192.0.2.0/24",)).server.trusted_networks == (ip_network("192.0.2.0/24"),)


def test_names_of_client_certificates_given_as_flags_replace_those_of_the_file(load):
    text = "server: {tls_cert: /c, tls_key: /k, tls_client_ca: /ca, tls_client_sans: [a.example]}"
    assert load(text, tls_client_san=("b.example", "c.example")).server.tls_client_sans == ("b.example", "c.example")


def test_a_relative_work_dir_is_made_absolute_once_at_the_start(load):
    assert load(work_dir="here").agent.work_dir == str(Path.cwd() / "here")


def test_an_empty_section_is_no_section(load):
    assert load("agent:\nserver:\n  port: 90\nlog:\n").server.port == 90


def test_an_empty_file_is_no_file(load):
    assert load("# nothing here\n") == load_settings({}, {}, Path("/nonexistent"))


@pytest.mark.parametrize(
    ("text", "total", "low"),
    [("10%", 1000, 100), ("2.5%", 1000, 25), ("0%", 1000, 0), ("5GiB", 1, 5 * 2**30), ("5Gi", 1, 5 * 2**30), ("500MB", 1, 500_000_000)],
)
def test_a_low_disk_is_a_share_or_a_size(load, text, total, low):
    assert load(f"agent: {{node: {{disk_low: {text}}}}}").agent.node.low_bytes(total) == low


@pytest.mark.parametrize(("text", "size"), [("5GiB", 5 * 1024**3), ("5Gi", 5 * 1024**3), ("1MB", 10**6), ("1024", 1024), ("0", 0)])
def test_a_size_is_a_number_of_bytes_or_has_a_unit(load, text, size):
    assert load(f"agent: {{artifacts: {{max_bytes: {text}}}}}").agent.artifacts.max_bytes == size


def test_the_controllers_address_is_taken_with_a_slash_at_its_end_or_without(load):
    assert load(environ={"AGENT_OPERATOR_URL": "http://operator-pm:8080/"}).agent.operator.url == "http://operator-pm:8080"


def test_settings_cannot_be_changed_later(load):
    with pytest.raises(ValueError, match="frozen"):
        load().server.port = 1


WRONG_FILES = {
    "server: {prot: 1}": "{file}: unknown key server.prot; did you mean server.port?",
    "srever: {port: 1}": "{file}: unknown key srever; did you mean server?",
    "agent: {docker: {tls: true}}": "{file}: unknown key agent.docker.tls",
    "1: 2": "{file}: unknown key 1",
    "server: {port: abc}": "{file}: server.port must be a whole number, not 'abc'",
    "server: {port: 0}": "{file}: server.port must be greater than or equal to 1, not 0",
    "server: {port: 65536}": "{file}: server.port must be less than or equal to 65535, not 65536",
    "server: {port: yes}": "{file}: server.port must be a number, not true or false",
    "server: {port: null}": "{file}: server.port must be a whole number, not None",
    "server: [8081]": "{file}: server must be a section with settings in it, not a list",
    "server: 8081": "{file}: server must be a section with settings in it, not 8081",
    "log: {level: loud}": "{file}: log.level must be 'debug', 'info', 'warning', 'warn' or 'error', not 'loud'",
    "agent: {id: 5}": "{file}: agent.id must be text (put it in quotes), not 5",
    "agent: {docker: {image_gc: {low_threshold_percent: 90}}}": (
        "{file}: agent.docker.image_gc low_threshold_percent must be below high_threshold_percent, 85"
    ),
    "agent: {docker: {image_gc: {high_threshold_percent: 101}}}": (
        "{file}: agent.docker.image_gc.high_threshold_percent must be less than or equal to 100, not 101"
    ),
    "agent: {docker: {enabled: 7}}": "{file}: agent.docker.enabled must be true or false, not 7",
    "agent: {health: {timeout: .nan}}": "{file}: agent.health.timeout must be greater than 0, not nan",
    "agent: {operator: {url: 'operator-pm:8080'}}": "{file}: agent.operator.url must be an address like http://operator-pm:8080",
    "agent: {operator: {url: 'ftp://operator-pm'}}": "{file}: agent.operator.url must be an address like http://operator-pm:8080",
    "agent: {operator: {url: 'http://'}}": "{file}: agent.operator.url must be an address like http://operator-pm:8080",
    "agent: {operator: {url: 'http://a:99999'}}": "{file}: agent.operator.url must be an address like http://operator-pm:8080",
    "agent: {operator: {url: 'http://a b'}}": "{file}: agent.operator.url must be an address like http://operator-pm:8080",
    "agent: {operator: {url: 'http://me:s3cr3t@a?x=1'}}": "{file}: agent.operator.url must be an address without a query, "
    "like http://operator-pm:8080",
    "agent: {operator: {advertise_url: 'pm-node-1'}}": "{file}: agent.operator.advertise_url must be an address "
    "like http://operator-pm:8080",
    "agent: {operator: {interval: 0.5}}": "{file}: agent.operator.interval must be greater than or equal to 1, not 0.5",
    "agent: {artifacts: {max_bytes: much}}": "{file}: agent.artifacts.max_bytes must be a size like 5GiB",
    "agent: {artifacts: {max_bytes: true}}": "{file}: agent.artifacts.max_bytes must be a size like 5GiB",
    "agent: {artifacts: {file_roots: /srv}}": "{file}: agent.artifacts.file_roots must be a list, not '/srv'",
    "agent: {node: {disk_low: 10}}": "{file}: agent.node.disk_low must be text (put it in quotes), not 10",
    "agent: {node: {disk_low: 101%}}": "{file}: agent.node.disk_low must be a share of the disk like 10% or a size like 5GiB "
    "(0% for no warning)",
    "agent: {node: {disk_low: much}}": "{file}: agent.node.disk_low must be a share of the disk like 10% or a size like 5GiB "
    "(0% for no warning)",
    "server: {trusted_networks: [10.0.0.1/8]}": "{file}: server.trusted_networks must be a network like 10.0.0.0/8: "
    "10.0.0.1/8 has host bits set",
    "server: {trusted_networks: 10.0.0.0/8}": "{file}: server.trusted_networks must be a list, not '10.0.0.0/8'",
    "server: {port: 1}\nserver: {port: 2}": "the configuration file {file} is not valid YAML: the "
    "key 'server' appears twice in one mapping (line 2, column 1)",
    "server: [": "the configuration file {file} is not valid YAML: expected the node content, but found '<stream end>' (line 1, column 10)",
    "--- {}\n--- {}": "the configuration file {file} is not valid YAML: it holds 2 documents; one is expected",
    "- server": "the configuration file {file} must hold a mapping with server, log and agent",
    "[" * 5000: "the configuration file {file} is not valid YAML: it is nested too deeply",
    "a: !!python/object:os.system x": "the configuration file {file} is not valid YAML: could not determine a constructor for the tag "
    "'tag:yaml.org,2002:python/object:os.system' (line 1, column 4)",
}


@pytest.mark.parametrize("text", WRONG_FILES, ids=lambda text: text[:40])
def test_a_wrong_file_is_refused_with_one_line_that_names_the_file_and_the_key(load, tmp_path, text):
    with pytest.raises(StartupError) as refused:
        load(text)
    assert str(refused.value) == "cannot start: " + WRONG_FILES[text].format(file=tmp_path / "agent.yaml")


def test_a_bad_value_in_the_environment_is_named_by_its_variable(load):
    with pytest.raises(StartupError, match=r"^cannot start: AGENT_SERVER_PORT must be a whole number, not 'x'$"):
        load(environ={"AGENT_SERVER_PORT": "x"})


def test_a_bad_flag_is_named_as_it_was_written(load):
    with pytest.raises(StartupError, match=r"^cannot start: --port must be a whole number, not 'x'$"):
        load(port="x")


def test_a_bad_value_is_refused_even_where_a_stronger_one_hides_it(load):
    with pytest.raises(StartupError, match="AGENT_SERVER_PORT"):
        load(environ={"AGENT_SERVER_PORT": "x"}, port="8081")


def test_a_misspelt_variable_of_ours_is_refused_and_a_strangers_is_left_alone(load):
    with pytest.raises(StartupError, match=r"unknown environment variable AGENT_SERVER_PROT; did you mean AGENT_SERVER_PORT\?"):
        load(environ={"AGENT_SERVER_PROT": "1"})
    with pytest.raises(StartupError, match=r"unknown environment variable AGENT_WORKDIR; did you mean AGENT_WORK_DIR\?"):
        load(environ={"AGENT_WORKDIR": "/srv"})
    assert load(environ={"AGENT_NAME": "build-7", "AGENT_TOOLSDIRECTORY": "/opt"}).server.port == 8081


@pytest.mark.parametrize("name", ["AGENT_SERVER_HOST", "AGENT_LOG_OUTPUT", "AGENT_DOCKER_NETWORK_MODE", "AGENT_WORK_DIR"])
def test_an_empty_value_where_there_must_be_one_is_called_empty(load, name):
    with pytest.raises(StartupError, match=rf"^cannot start: {name} must not be empty$"):
        load(environ={name: ""})


def test_a_file_that_was_named_must_exist_and_be_readable(load, tmp_path):
    with pytest.raises(StartupError, match=f"the configuration file {tmp_path}/other does not exist"):
        load(config=str(tmp_path / "other"))
    with pytest.raises(StartupError, match=f"cannot read the configuration file {tmp_path}: Is a directory"):
        load(config=str(tmp_path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"server: {host: a\x00b}", b"\x80abc"])
def test_a_file_that_is_not_text_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "agent.yaml"
    file.write_bytes(content)
    with pytest.raises(StartupError, match="is not valid YAML") as refused:
        load_settings({"--config": str(file)}, {})
    assert "\n" not in str(refused.value)


def test_a_file_of_aliases_that_would_unfold_to_gigabytes_is_refused_quickly(load):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    with pytest.raises(StartupError, match="unknown key a0") as refused:
        load("\n".join([*lines, "server: *a11"]))
    assert len(str(refused.value)) < 5000


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"tls_cert": "c"}, "server.tls_cert (--tls-cert) needs server.tls_key (--tls-key) beside it"),
        ({"tls_key": "k"}, "server.tls_key (--tls-key) needs server.tls_cert (--tls-cert) beside it"),
        ({"tls_client_ca": "ca"}, "server.tls_client_ca (--tls-client-ca) needs --tls-cert and --tls-key"),
        (
            {"tls_cert": "c", "tls_key": "k", "tls_client_san": ("a.example",)},
            "server.tls_client_sans (--tls-client-san) needs the CA beside it: server.tls_client_ca (--tls-client-ca)",
        ),
    ],
)
def test_half_of_what_belongs_together_is_refused_and_the_other_half_named(load, given, missing):
    with pytest.raises(StartupError, match=re.escape(f"cannot start: {missing}")):
        load(**given)


def test_a_certificate_and_its_key_may_come_from_different_places(load):
    server = load("server: {tls_cert: /c, tls_client_ca: /ca, tls_client_sans: [a, b]}", {"AGENT_SERVER_TLS_KEY": "k"}).server
    assert (server.tls_cert, server.tls_key, server.tls_client_ca) == ("/c", str(Path.cwd() / "k"), "/ca")
    assert server.tls_client_sans == ("a", "b")
    assert server.token_file == ""


def test_the_real_environment_of_this_process_is_not_read_behind_ones_back(load):
    os.environ["AGENT_SERVER_PORT"] = "1234"
    try:
        assert load().server.port == 8081
    finally:
        del os.environ["AGENT_SERVER_PORT"]
