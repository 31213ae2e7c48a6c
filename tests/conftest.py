pytest_plugins = ["tests.databases", "tests.services", "tests.relaying.fixtures"]
