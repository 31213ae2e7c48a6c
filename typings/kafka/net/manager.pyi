import socket

from kafka.net.connection import KafkaConnection
from kafka.net.selector import NetworkSelector

class KafkaConnectionManager:
    def __init__(self, net: NetworkSelector, **configs: object) -> None: ...
    def get_connection(
        self, node_id: int | str, *args: object, **options: object
    ) -> KafkaConnection: ...

async def create_connection(
    net: object, host: str, port: int, socket_options: object = (), **options: object
) -> socket.socket: ...
