"""HTTP: parse, call the store, wake the reconciler, render. Nothing here touches a driver.

``create_app`` makes the aiohttp application, ``listen`` puts it on a port.
"""

from boreas_agent.api.app import ApiSettings, create_app
from boreas_agent.api.render import Surroundings
from boreas_agent.api.server import listen

__all__ = ["ApiSettings", "Surroundings", "create_app", "listen"]
