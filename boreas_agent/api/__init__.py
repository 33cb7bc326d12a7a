"""HTTP: parse, call the store, wake the reconciler, render. Nothing here touches a driver.

``create_app`` makes the aiohttp application, ``listen`` puts it on a port; ``Security`` is what both know of callers.
"""

from boreas_agent.api.app import ApiSettings, create_app
from boreas_agent.api.render import Surroundings
from boreas_agent.api.security import Security
from boreas_agent.api.server import listen

__all__ = ["ApiSettings", "Security", "Surroundings", "create_app", "listen"]
