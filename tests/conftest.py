"""What every folder of tests may use: the fixtures around a real Docker engine."""

pytest_plugins = ("tests.engine.fixtures",)
