"""What a pkg may say, what is wrong with it and where, and what counts as the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boreas_agent.errors import Invalid
from boreas_agent.spec import (
    Submission,
    canonical,
    instance_hash,
    masked_text,
    max_attempts,
    parse_pkg,
    parse_submission,
    restart_policy,
    spec_hash,
)

DOCKER: dict[str, Any] = {"type": "docker", "image": "nginx:1.27"}
BINARY: dict[str, Any] = {"type": "binary", "command": ["/bin/sleep", "1000"]}
SCRIPT: dict[str, Any] = {"type": "script", "command": ["echo hello"]}


def submitted(base: dict[str, Any] = DOCKER, **pkg: Any) -> Submission:
    return parse_submission({"app": "web", "version": "v1", "pkg": base | pkg})


def faults(data: object) -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        parse_submission(data)
    return {fault.field: fault.message for fault in refused.value.fields}


def pkg_faults(base: dict[str, Any] = DOCKER, **pkg: Any) -> dict[str, str]:
    return faults({"app": "web", "version": "v1", "pkg": base | pkg})


# --- beside pkg ------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["a", "0", "my-app", "A.b_c-1", "a..b", "x" * 63])
def test_an_app_name_begins_with_a_letter_or_digit_and_is_at_most_63_long(app: str) -> None:
    assert parse_submission({"app": app, "version": "v1", "pkg": DOCKER}).app == app


@pytest.mark.parametrize("app", ["", ".", "..", "-a", "_a", "a/b", "../a", "a b", "a\n", "a\0", "ü", "٣", "x" * 64, 1, None, [], True])
def test_every_other_app_name_is_refused(app: object) -> None:
    assert list(faults({"app": app, "version": "v1", "pkg": DOCKER})) == ["app"]


@pytest.mark.parametrize("version", ["v1", "feature/x", "../../etc", "1.0 beta", "ü", "x" * 128])
def test_a_version_is_any_printable_text_because_it_never_becomes_a_path(version: str) -> None:
    assert parse_submission({"app": "a", "version": version, "pkg": DOCKER}).version == version


@pytest.mark.parametrize("version", ["", "x" * 129, "a\nb", "a\0", "\x1b[0m", "\x85", "\u2028", "\ud800", 1, None, {}])
def test_every_other_version_is_refused(version: object) -> None:
    assert list(faults({"app": "a", "version": version, "pkg": DOCKER})) == ["version"]


def test_package_is_another_name_for_pkg_and_faults_are_named_by_it() -> None:
    assert parse_submission({"app": "a", "version": "v", "package": DOCKER}).pkg == parse_pkg(DOCKER)
    assert faults({"app": "a", "version": "v", "package": DOCKER | {"replicas": -1}}) == {
        "package.replicas": "must be greater than or equal to 0"
    }
    assert faults({"app": "a", "version": "v", "package": DOCKER, "pkg": DOCKER}) == {
        "package": "is another name for pkg; give one of them"
    }


def test_everything_that_is_missing_or_unknown_is_named_at_once() -> None:
    assert faults({"name": 1, "force": "yes"}) == {
        "name": "unknown field",
        "app": "is required",
        "version": "is required",
        "force": "must be true or false",
        "pkg": "is required",
    }
    bodies: tuple[object, ...] = (None, [], "x", 3)
    for body in bodies:
        assert list(faults(body)) == [""]


# --- health ----------------------------------------------------------------------------------------

HTTP: dict[str, Any] = {"http": {"port": 8080}}
PATH_RULE = "must begin with / and hold printable ASCII without spaces; write other characters as %XX"
STATUS_RULE = "must be an HTTP status or a range of them such as '200-399'"


@pytest.mark.parametrize("base", [DOCKER, BINARY, SCRIPT])
def test_every_type_may_have_probes_and_the_agents_defaults_are_no_part_of_them(base: dict[str, Any]) -> None:
    probe = HTTP | {"success_threshold": 1, "initial_delay_seconds": 0, "interval_seconds": None, "tcp": {}}
    pkg = submitted(base, health={"readiness": probe, "liveness": {}, "startup": None}).pkg
    assert canonical(pkg)["health"] == {"readiness": {"http": {"port": 8080}}}
    whole = {"interval_seconds": 10, "timeout_seconds": 1, "failure_threshold": 3, "success_threshold": 1, "initial_delay_seconds": 0}
    spelt_out = {"http": {"port": 8080, "path": "/", "scheme": "HTTP", "headers": {}, "expected_status": {"min": 200, "max": 399}}}
    assert submitted(base, health={"readiness": spelt_out}) == submitted(base, health={"readiness": HTTP})
    assert canonical(submitted(base, health={"readiness": HTTP | whole}).pkg)["health"]["readiness"]["interval_seconds"] == 10


@pytest.mark.parametrize(
    ("probe", "field", "message"),
    [
        ({"interval_seconds": 1}, ".http", "give one of http, tcp and exec"),
        (HTTP | {"tcp": {"port": 1}}, ".tcp", "give one of http, tcp and exec, not both"),
        (HTTP | {"period": 1}, ".period", "unknown field"),
        (HTTP | {"period": []}, ".period", "unknown field"),
        (HTTP | {"interval_seconds": 0}, ".interval_seconds", "must be greater than or equal to 0.1"),
        (HTTP | {"failure_threshold": 0}, ".failure_threshold", "must be greater than or equal to 1"),
        (HTTP | {"success_threshold": 2}, ".success_threshold", "must be 1 for a liveness probe"),
        ({"http": {}}, ".http", "give one of http, tcp and exec"),
        ({"http": {"path": "/"}}, ".http.port", "is required"),
        (
            {"http": {"port": 1, "path": "x"}},
            ".http.path",
            PATH_RULE,
        ),
        (
            {"http": {"port": 1, "path": "/a b"}},
            ".http.path",
            PATH_RULE,
        ),
        ({"http": {"port": 1, "headers": {"X": "a\r\nb"}}}, ".http.headers.X", "must be printable ASCII on one line"),
        (
            {"http": {"port": 1, "expected_status": "399-200"}},
            ".http.expected_status",
            "the range 399-200 is empty: the lower status comes first",
        ),
        (
            {"http": {"port": 1, "expected_status": True}},
            ".http.expected_status",
            "must be an HTTP status or a range of them such as '200-399'",
        ),
        ({"exec": {"command": "true"}}, ".exec.command", "must be a list"),
        ({"exec": {"command": [""]}}, ".exec.command[0]", "the program must not be empty"),
        (3, "", "must be an object"),
    ],
)
def test_what_is_wrong_with_a_probe_is_named(probe: object, field: str, message: str) -> None:
    assert pkg_faults(health={"liveness": probe}) == {f"pkg.health.liveness{field}": message}


@pytest.mark.parametrize(
    ("given", "good", "bad"),
    [(204, 204, 200), ("200-299", 299, 300), ("2xx", 200, 199), ("200 - 204", 204, 205), ({"min": 100, "max": 599}, 599, 99)],
)
def test_an_expected_status_may_be_written_as_one_would_guess(given: object, good: int, bad: int) -> None:
    http = submitted(health={"readiness": {"http": {"port": 1, "expected_status": given}}}).pkg.health.probes["readiness"].http
    assert http is not None
    assert (http.expects(good), http.expects(bad)) == (True, False)


def test_a_change_of_the_probes_is_another_request_and_replaces_nothing() -> None:
    one, other = submitted(), submitted(health={"readiness": HTTP})
    assert one.spec_hash != other.spec_hash
    assert instance_hash("v1", one.pkg, 1, 1) == instance_hash("v1", other.pkg, 1, 2)


def test_the_values_of_headers_are_shown_to_nobody() -> None:
    health = {"readiness": {"http": {"port": 1, "headers": {"Authorization": "Bearer s3cret"}}}, "liveness": HTTP}
    pkg = submitted(health=health).pkg
    assert json.loads(masked_text(pkg))["health"]["readiness"]["http"]["headers"] == {"Authorization": "***"}
    assert "s3cret" not in masked_text(pkg)
    assert json.loads(masked_text(pkg))["health"]["liveness"] == HTTP
    assert canonical(pkg)["health"]["readiness"]["http"]["headers"] == {"Authorization": "Bearer s3cret"}


# --- pkg -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [DOCKER, BINARY, SCRIPT])
def test_empty_lists_and_maps_and_null_mean_not_given_also_where_the_type_has_no_such_field(base: dict[str, Any]) -> None:
    empty: dict[str, Any] = {
        "args": [],
        "environment": {},
        "volumes": [],
        "ports": [],
        "artifacts": [],
        "health": {},
        "resources": {},
        "restart": None,
        "rollout": {},
        "stop": {},
        "schedule": None,
        "user": None,
    }
    if base is DOCKER:
        empty["command"] = []
    assert submitted(base, **empty) == submitted(base)


def test_an_unknown_field_is_an_error_by_its_path_also_when_it_is_empty() -> None:
    assert pkg_faults(imagee="x", nothing=[], ports=[{"host": 1, "container": 2, "proto": "tcp"}], restart={"retries": 3}) == {
        "pkg.imagee": "unknown field",
        "pkg.nothing": "unknown field",
        "pkg.ports[0].proto": "unknown field",
        "pkg.restart.retries": "unknown field",
    }


@pytest.mark.parametrize(
    ("base", "field", "value"),
    [
        (BINARY, "image", "x"),
        (SCRIPT, "ports", [{"host": 1, "container": 1}]),
        (DOCKER, "script", "x"),
        (BINARY, "check", "x"),
        (SCRIPT, "volumes", [1]),
    ],
)
def test_a_field_of_another_type_is_an_error_that_says_so(base: dict[str, Any], field: str, value: object) -> None:
    assert pkg_faults(base, **{field: value}) == {f"pkg.{field}": f"{base['type']} apps have no such field"}


@pytest.mark.parametrize("pkg", [{}, {"type": None}, {"type": "vm"}, {"type": ["docker"]}, {"type": 3}])
def test_the_type_is_one_of_three(pkg: dict[str, Any]) -> None:
    assert faults({"app": "a", "version": "v", "pkg": pkg}) == {"pkg.type": "is required and must be one of docker, binary, script"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"replicas": 1001}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"replicas": 1.0}, "replicas"),
        ({"replicas": True}, "replicas"),
        ({"replicas": "1"}, "replicas"),
        ({"replicas": 10**400}, "replicas"),
        ({"args": "a b"}, "args"),
        ({"args": ["a", 1]}, "args[1]"),
        ({"args": ["a\0b"]}, "args[0]"),
        ({"args": ["x"] * 2049}, "args"),
        ({"environment": {"A": 1}}, "environment.A"),
        ({"environment": {"A=B": "x"}}, "environment.A=B"),
        ({"environment": {"A\n": "x"}}, "environment.A\n"),
        ({"environment": {"": "x"}}, "environment."),
        ({"environment": {"A": "\0"}}, "environment.A"),
        ({"environment": ["A=b"]}, "environment"),
        ({"working_dir": "relative"}, "working_dir"),
        ({"working_dir": "/a\nb"}, "working_dir"),
        ({"user": "a b"}, "user"),
        ({"user": -1}, "user"),
        ({"user": True}, "user"),
        ({"user": ":"}, "user"),
        ({"restart": {"policy": "sometimes"}}, "restart.policy"),
        ({"restart": {"factor": 0.5}}, "restart.factor"),
        ({"restart": {"factor": 10**400}}, "restart.factor"),
        ({"restart": {"initial_delay_seconds": -1}}, "restart.initial_delay_seconds"),
        ({"restart": {"max_attempts": 0}}, "restart.max_attempts"),
        ({"restart": "always"}, "restart"),
        ({"stop": {"signal": "SIGNOPE"}}, "stop.signal"),
        ({"stop": {"grace_seconds": 86401}}, "stop.grace_seconds"),
        ({"rollout": {"strategy": "blue-green"}}, "rollout.strategy"),
        ({"rollout": {"strategy": "start-first"}, "ports": [{"host": 80, "container": 1}]}, "rollout.strategy"),
        ({"rollout": {"strategy": "blue-green"}}, "rollout.strategy"),
        ({"rollout": {"strategy": "start-first", "max_surge": 0}}, "rollout.max_surge"),
        ({"rollout": {"max_surge": 1}}, "rollout.max_surge"),
        ({"rollout": {"max_unavailable": 0}}, "rollout.max_unavailable"),
        ({"rollout": {"max_unavailable": "25%"}}, "rollout.max_unavailable"),
        ({"rollout": {"progress_deadline_seconds": -1}}, "rollout.progress_deadline_seconds"),
        ({"rollout": {"auto_rollback": "yes"}}, "rollout.auto_rollback"),
        ({"image": None}, "image"),
        ({"image": ""}, "image"),
        ({"image": "two words"}, "image"),
        ({"image": "nginx/UPPER"}, "image"),
        ({"image": "nginx:"}, "image"),
        ({"image": "nginx@sha256:12"}, "image"),
        ({"image": "-v"}, "image"),
        ({"ports": [{"host_port": 0, "container_port": 80}]}, "ports[0].host_port"),
        ({"ports": [{"host_port": 80}]}, "ports[0].container_port"),
        ({"ports": [{"host_port": 80, "container_port": 80, "protocol": "icmp"}]}, "ports[0].protocol"),
        ({"ports": [{"host_port": 80, "host": 80, "container_port": 80}]}, "ports[0].host"),
        ({"ports": [{"host": 80, "container": 1}, {"host": 80, "container": 2}]}, "ports[1].host_port"),
        ({"ports": [{"host": 80, "container": 1}], "replicas": 2}, "replicas"),
        ({"volumes": [{"host_path": "data", "container_path": "/d"}]}, "volumes[0].host_path"),
        ({"volumes": [{"host_path": "/a:b", "container_path": "/d"}]}, "volumes[0].host_path"),
        ({"volumes": [{"host_path": "/a", "container_path": "/d", "read_only": "yes"}]}, "volumes[0].read_only"),
        ({"volumes": [{"host_path": p, "container_path": "/d"} for p in ("/a", "/b")]}, "volumes[1].container_path"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(change: dict[str, Any], field: str) -> None:
    found = pkg_faults(**change)
    assert list(found) == [f"pkg.{field}"]
    assert found[f"pkg.{field}"]


@pytest.mark.parametrize(
    ("base", "change", "field"),
    [
        (BINARY, {"command": None}, "command"),
        (BINARY, {"command": [""]}, "command[0]"),
        (BINARY, {"command": ["../../bin/sh"]}, "command[0]"),
        (SCRIPT, {"command": None}, "script"),
        (SCRIPT, {"script": "exit 0"}, "script"),
        (SCRIPT, {"command": None, "script": "a\0"}, "script"),
        (SCRIPT, {"replicas": 2}, "replicas"),
        (SCRIPT, {"restart": {"policy": "always"}}, "restart.policy"),
    ],
)
def test_programs_and_scripts_have_rules_of_their_own(base: dict[str, Any], change: dict[str, Any], field: str) -> None:
    assert list(pkg_faults(base, **change)) == [f"pkg.{field}"]


@pytest.mark.parametrize(
    "image",
    [
        "a",
        "my-app:v1.0.0",
        "library/nginx",
        "localhost:5000/team/app:1",
        "Registry.Example.com/a__b/c-d.e",
        "[::1]:5000/x",
        "nginx@sha256:" + "0" * 64,
        "nginx:1.27@sha256:" + "a" * 64,
        "sha256:" + "0" * 64,
    ],
)
def test_every_form_of_image_reference_is_accepted(image: str) -> None:
    assert canonical(submitted(image=image).pkg)["image"] == image


def test_scripts_and_environment_values_may_have_newlines_and_tabs() -> None:
    pkg = submitted(SCRIPT, command=None, script="#!/bin/sh\n\techo hi\n", environment={"A": "1\n\t2"}).pkg
    assert canonical(pkg) == {"type": "script", "script": "#!/bin/sh\n\techo hi\n", "environment": {"A": "1\n\t2"}}


def test_short_port_names_signal_names_and_numeric_users_are_the_same_as_the_long_ones() -> None:
    short = submitted(ports=[{"host": 1, "container": 2}], stop={"signal": "int"}, user=1000)
    long = submitted(ports=[{"host_port": 1, "container_port": 2, "protocol": "tcp"}], stop={"signal": "SIGINT"}, user="1000")
    assert short == long


def test_defaults_depend_on_the_type() -> None:
    assert [restart_policy(parse_pkg(base)) for base in (DOCKER, BINARY, SCRIPT)] == ["always", "always", "on-failure"]
    assert [max_attempts(parse_pkg(base)) for base in (DOCKER, BINARY, SCRIPT)] == [None, None, 3]


# --- the same or not -------------------------------------------------------------------------------


def test_a_default_that_is_given_makes_no_difference() -> None:
    given_all = submitted(
        replicas=1, args=[], restart={"factor": 2, "initial_delay_seconds": 1}, stop={"grace_seconds": 10}, rollout={"strategy": "recreate"}
    )
    assert given_all.spec_hash == submitted().spec_hash
    assert canonical(given_all.pkg) == DOCKER


def test_the_hashes_of_a_known_spec_never_change_for_instances_are_compared_by_them() -> None:
    pkg = parse_pkg({**DOCKER, "ports": [{"host": 80, "container": 8080}], "environment": {"B": "2", "A": "1"}})
    assert spec_hash("v1", pkg) == "a5a8edceaf9dd4bad876f09116ed3755"
    assert instance_hash("v1", pkg, 3, 7) == "81ae9d2abaeda90dad3ef87842dace3f"


def test_the_order_of_keys_makes_no_difference() -> None:
    one, other = ({"environment": {"A": "1", "B": "2"}}, {"environment": {"B": "2", "A": "1"}})
    assert submitted(**one).spec_hash == submitted(**other).spec_hash


def test_another_version_or_any_other_field_is_another_request() -> None:
    pkg = parse_pkg(DOCKER)
    assert spec_hash("v1", pkg) != spec_hash("v2", pkg)
    assert len({submitted(**change).spec_hash for change in ({}, {"replicas": 2}, {"args": ["x"]}, {"stop": {"grace_seconds": 1}})}) == 4


def test_how_instances_are_treated_is_no_part_of_what_they_are_made_from() -> None:
    treated: dict[str, Any] = {
        "replicas": 3,
        "restart": {"policy": "never"},
        "rollout": {"min_healthy_seconds": 1},
        "stop": {"signal": "INT"},
    }
    assert instance_hash("v1", submitted(**treated).pkg, 1, 1) == instance_hash("v1", submitted().pkg, 1, 9)
    assert instance_hash("v1", submitted().pkg, 2, 2) != instance_hash("v1", submitted().pkg, 1, 2)


def test_a_script_runs_once_for_each_revision_so_the_revision_is_part_of_what_it_is() -> None:
    pkg = parse_pkg(SCRIPT)
    assert instance_hash("v1", pkg, 1, 1) != instance_hash("v1", pkg, 1, 2)


def test_environment_values_are_masked_and_the_pkg_keeps_them() -> None:
    pkg = submitted(environment={"PASSWORD": "secret"}).pkg
    assert json.loads(masked_text(pkg))["environment"] == {"PASSWORD": "***"}
    assert canonical(pkg)["environment"] == {"PASSWORD": "secret"}


def test_a_changed_copy_has_a_canonical_form_of_its_own() -> None:
    pkg = parse_pkg(DOCKER)
    assert canonical(pkg) == DOCKER
    assert canonical(pkg.model_copy(update={"replicas": 2})) == DOCKER | {"replicas": 2}


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "type",
        "image",
        "command",
        "args",
        "environment",
        "volumes",
        "ports",
        "replicas",
        "resources",
        "script",
        "artifacts",
        "check",
        "check_interval_seconds",
        "schedule",
        "timeout_seconds",
        "retries",
        "working_dir",
        "user",
        "restart",
        "health",
        "rollout",
        "stop",
        "host",
    ]
)


@given(st.dictionaries(FIELDS | st.text(max_size=5), JSONISH, max_size=6), st.sampled_from([DOCKER, BINARY, SCRIPT, {}]))
def test_any_pkg_is_either_refused_or_survives_its_canonical_form(change: dict[str, Any], base: dict[str, Any]) -> None:
    try:
        accepted = parse_submission({"app": "a", "version": "v", "pkg": base | change})
    except Invalid as error:
        assert all(fault.message for fault in error.fields)
        return
    again = parse_pkg(json.loads(json.dumps(canonical(accepted.pkg))))
    assert again == accepted.pkg
    assert spec_hash("v", again) == accepted.spec_hash


# --- resources, and how a process is set up --------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "kept"),
    [
        ({"cpu_limit": "500m"}, {"cpu_limit": "0.5"}),
        ({"cpu_limit": 1.5}, {"cpu_limit": "1.5"}),
        ({"cpu_limit": "1500m"}, {"cpu_limit": "1.5"}),
        ({"memory_limit": "512m"}, {"memory_limit": "512Mi"}),
        ({"memory_limit": "512MB"}, {"memory_limit": "512Mi"}),
        ({"memory_limit": "1024Mi"}, {"memory_limit": "1Gi"}),
        ({"memory_limit": 1_000_000_000}, {"memory_limit": "1000000000"}),
        ({"cpu_set": "0,2-3"}, {"cpu_set": "0,2-3"}),
        ({"pids_limit": 1}, {"pids_limit": 1}),
        ({"cpu_limit": "", "memory_limit": "", "cpu_set": None}, {}),
    ],
)
@pytest.mark.parametrize("base", [DOCKER, BINARY, SCRIPT])
def test_limits_that_mean_the_same_are_kept_as_the_same(base: dict[str, Any], resources: dict[str, Any], kept: dict[str, Any]) -> None:
    assert canonical(submitted(base, resources=resources).pkg).get("resources", {}) == kept


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({"cpu_limit": "0"}, "cpu_limit"),
        ({"cpu_limit": "-1"}, "cpu_limit"),
        ({"cpu_limit": "1e9"}, "cpu_limit"),
        ({"cpu_limit": True}, "cpu_limit"),
        ({"memory_limit": "5Mi"}, "memory_limit"),
        ({"memory_limit": "much"}, "memory_limit"),
        ({"memory_limit": "99999999Ti"}, "memory_limit"),
        ({"memory_limit": "9" * 400}, "memory_limit"),
        ({"memory_limit": 10**400}, "memory_limit"),
        ({"cpu_limit": "9" * 400 + "m"}, "cpu_limit"),
        ({"cpu_limit": 10**400}, "cpu_limit"),
        ({"cpu_set": "9" * 5000}, "cpu_set"),
        ({"cpu_set": "3-1"}, "cpu_set"),
        ({"cpu_set": "0-99999"}, "cpu_set"),
        ({"cpu_set": "a"}, "cpu_set"),
        ({"pids_limit": 0}, "pids_limit"),
        ({"disk": "1Gi"}, "disk"),
    ],
)
def test_limits_that_mean_nothing_are_refused_by_name(resources: dict[str, Any], field: str) -> None:
    assert list(pkg_faults(BINARY, resources=resources)) == [f"pkg.resources.{field}"]


@pytest.mark.parametrize(
    ("pkg", "field"),
    [
        ({"ulimits": {"nofiles": 1}}, "pkg.ulimits.nofiles"),
        ({"ulimits": {"nofile": {"soft": 2, "hard": 1}}}, "pkg.ulimits.nofile.soft"),
        ({"ulimits": {"nofile": {"soft": -1, "hard": 1}}}, "pkg.ulimits.nofile.soft"),
        ({"ulimits": {"nofile": True}}, "pkg.ulimits.nofile"),
        ({"umask": "0999"}, "pkg.umask"),
        ({"umask": 22}, "pkg.umask"),
        ({"no_new_privs": "yes"}, "pkg.no_new_privs"),
        ({"environment_from": ["relative"]}, "pkg.environment_from[0].path"),
        ({"environment_from": [{"file": "/x"}]}, "pkg.environment_from[0].path"),
    ],
)
def test_how_a_process_is_set_up_is_checked(pkg: dict[str, Any], field: str) -> None:
    assert field in pkg_faults(BINARY, **pkg)


def test_a_changed_limit_replaces_the_instance() -> None:
    before, after = (submitted(DOCKER, resources={"pids_limit": limit}) for limit in (10, 11))
    assert instance_hash("v1", before.pkg, 1, 1) != instance_hash("v1", after.pkg, 1, 1)
