pytest_plugins = ["tests.services", "tests.relaying.fixtures"]
