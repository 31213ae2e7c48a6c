from kafka.cluster import ClusterMetadata
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

class KafkaNetClient:
    cluster: ClusterMetadata
    _manager: KafkaConnectionManager
    def __init__(
        self,
        net: NetworkSelector | None = None,
        manager: KafkaConnectionManager | None = None,
        **configs: object,
    ) -> None: ...
    def connected(self, node_id: int | str) -> bool: ...
    def close(self) -> None: ...
