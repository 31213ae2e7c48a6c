pytest_plugins = [  # each before those that import it: pytest rewrites its asserts while importing
    "tests.shared",
    "tests.services",
    "tests.databases",
    "tests.saga_registries",
    "tests.postgres_versions",
    "tests.relaying.fixtures",
]
