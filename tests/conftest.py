pytest_plugins = [
    "tests.databases",
    "tests.saga_registries",
    "tests.services",
    "tests.postgres_versions",
    "tests.relaying.fixtures",
]
