"""Containers, as users ask for them: each field by the name and with the values that Compose has for it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from boreas_agent.spec.common import Common
from boreas_agent.spec.confinement import Capabilities, Devices, Gpus, Labels, Size, Tmpfs, UlimitName, Volume
from boreas_agent.spec.fields import LIST, MAX_ENTRIES, ImageReference, Words, misplaced, twice
from boreas_agent.spec.files import MountedFiles, check_mounted_files
from boreas_agent.spec.logs import check_container_log
from boreas_agent.spec.networking import Addresses, ExtraHosts, HostName, Network, NetworkMode, Port, given_twice
from boreas_agent.spec.resources import Ulimit


class DockerPkg(Common):
    """A container. ``command`` replaces the image's ENTRYPOINT, ``args`` its CMD.

    Without ``network_mode`` and ``networks`` the agent's own ``agent.docker.network_mode`` holds. ``init`` None: as the engine does it.
    """

    type: Literal["docker"]
    image: ImageReference
    pull_policy: Literal["missing", "always", "never"] = "missing"
    command: Words = ()
    files: MountedFiles = ()
    volumes: Annotated[tuple[Volume, ...], *LIST] = ()
    ports: Annotated[tuple[Port, ...], *LIST] = ()
    network_mode: NetworkMode | None = None
    networks: Annotated[tuple[Network, ...], *LIST] = ()
    hostname: HostName | None = None
    extra_hosts: ExtraHosts = ()
    dns: Addresses = ()
    cap_add: Capabilities = ()
    cap_drop: Capabilities = ()
    privileged: bool = False
    init: bool | None = None
    read_only: bool = False
    tmpfs: Tmpfs = Field(default_factory=dict)
    shm_size: Size | None = None
    ulimits: dict[UlimitName, Ulimit] = Field(default_factory=dict)
    devices: Devices = ()
    gpus: Gpus | None = None
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="after")
    def _mounts_fit(self) -> Self:
        mounted = set(self.tmpfs)
        for index, volume in enumerate(self.volumes):
            if volume.container_path in mounted:
                raise misplaced(f"volumes[{index}].container_path", f"{volume.container_path} is mounted twice")
            mounted.add(volume.container_path)
        by_field = {volume.container_path: f"volumes[{index}]" for index, volume in enumerate(self.volumes)}
        check_mounted_files(self.files, dict.fromkeys(self.tmpfs, "tmpfs") | by_field)
        return self

    @model_validator(mode="after")
    def _networks_fit(self) -> Self:
        names = [network.name for network in self.networks]
        if (again := twice(names)) is not None:
            raise misplaced("networks", f"{again} is given twice")
        mode = self.network_mode
        if mode is None:
            return self
        if names:
            raise misplaced("network_mode", "give either networks (to join them) or network_mode, not both")
        if self.ports and (mode in {"host", "none"} or mode.startswith("container:")):
            raise misplaced("network_mode", f"{mode} has no ports of its own to publish; leave ports out, or use bridge or a network")
        if mode.startswith("container:"):
            shared = [name for name in ("hostname", "extra_hosts", "dns") if getattr(self, name)]
            if shared:
                raise misplaced(shared[0], f"with network_mode {mode} it is that container's; leave it out")
        return self

    @model_validator(mode="after")
    def _ports_fit(self) -> Self:
        if sum(len(port.host_ports) for port in self.ports) > MAX_ENTRIES:
            raise misplaced("ports", f"must not publish more than {MAX_ENTRIES} ports in all")
        if (again := given_twice(self.ports)) is not None:
            index, port = again
            raise misplaced(f"ports[{index}].host_port", f"host port {port}/{self.ports[index].protocol} is given twice")
        if self.ports and self.replicas > 1:
            raise misplaced("replicas", f"{self.replicas} replicas cannot share fixed host ports; use one replica or no ports")
        return self

    @model_validator(mode="after")
    def _two_fit(self) -> Self:
        """Whether two instances can live side by side where the rollout wants them to."""
        if self.rollout.strategy != "start-first":
            return self
        needs = "start-first needs room for two instances, and"
        if self.ports:
            raise misplaced("rollout.strategy", f"{needs} only one can have host port {self.ports[0].host_port}; use recreate")
        mode = self.network_mode or ""
        if mode == "host" or mode.startswith("container:"):
            for kind, probe in self.health.probes.items():
                if (port := getattr(probe.check, "port", None)) is not None:
                    both = f"with network_mode {mode} both would use port {port}, which health.{kind} asks"
                    raise misplaced("rollout.strategy", f"{needs} {both}; use recreate")
        return self

    @model_validator(mode="after")
    def _capabilities_fit(self) -> Self:
        for index, name in enumerate(self.cap_drop):
            if name in self.cap_add:
                raise misplaced(f"cap_drop[{index}]", f"{name} is in cap_add, too; give it in one of them")
        return self

    @model_validator(mode="after")
    def _log_fits(self) -> Self:
        check_container_log(self.log)
        return self
