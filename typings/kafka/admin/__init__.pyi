from collections.abc import Mapping

class ConfigResource:
    def __init__(
        self, resource_type: str, name: str, configs: Mapping[str, str | None] | None = None
    ) -> None: ...
