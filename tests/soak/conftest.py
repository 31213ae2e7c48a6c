import os
from collections.abc import Iterator

import pytest

from tests.services import do_without, docker_answers, kafka_container


@pytest.fixture
def own_kafka() -> Iterator[str]:
    """The URL of a Kafka that a test may stop. It makes no topic by itself."""
    if not docker_answers():
        do_without("needs Docker, for a Kafka of the test's own")
    image = os.environ.get("KAFKA_IMAGE", "apache/kafka:4.1.0")
    with kafka_container(image, KAFKA_AUTO_CREATE_TOPICS_ENABLE="false") as url:
        yield url
