"""What every folder of tests may use: the fixtures around a real Docker engine."""

import signal

pytest_plugins = ("tests.engine.fixtures",)


def pytest_configure() -> None:
    """Who starts the tests in the background makes them, and every program they start, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
