pytest_plugins = [
    "tests.databases",
    "tests.services",
    "tests.postgres_versions",
    "tests.relaying.fixtures",
]
