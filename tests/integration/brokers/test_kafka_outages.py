"""What is particular to Kafka: a server that is away, slow or silent."""

import threading
import time
from contextlib import closing

import pytest
from kafka import KafkaAdminClient

from brokers import (
    Acknowledged,
    BrokerSlow,
    BrokerUnavailable,
    Failed,
    Message,
    await_broker,
)
from brokers.kafka.address import KafkaAddress
from brokers.kafka.timing import KafkaTiming
from brokers.kafka_broker import KafkaBroker
from tests.integration.brokers.kafka_proxy import KafkaProxy, SlowProxy
from tests.integration.brokers.kafka_steps import collect, is_unavailable, like, receive, until
from tests.ports import free_port

pytestmark = [
    pytest.mark.kafka,
    # kafka-python leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


class TestAnOutage:
    @pytest.mark.parametrize("kind", ["cut", "stall"])
    def test_what_is_queued_is_neither_lost_nor_failed(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy, kind: str
    ) -> None:
        with closing(proxied.publisher()) as source:
            source.publish(Message(topic, "key", b"first"), token=-1)
            assert collect(source, 1) == [Acknowledged(-1)]
            getattr(proxy, kind)()
            for token in range(50):
                source.publish(Message(topic, "key", str(token).encode()), token=token)
            assert source.reports(timeout=3) == []
            proxy.restore()
            assert collect(source, 50) == [Acknowledged(token) for token in range(50)]
        with closing(proxied.subscribe([topic], group=topic)) as target:
            values = [record.value for record in receive(target, 51)]
        assert values == [b"first", *(str(token).encode() for token in range(50))]

    def test_a_subscription_says_so_and_goes_on(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        with (
            closing(proxied.publisher()) as source,
            closing(proxied.subscribe([topic], group=topic)) as target,
        ):
            source.publish(Message(topic, "key", b"1"), token=1)
            target.commit(receive(target, 1))
            proxy.cut()
            until(lambda: is_unavailable(lambda: target.receive(timeout=0.2, limit=10)))
            source.publish(Message(topic, "key", b"2"), token=2)
            proxy.restore()
            [record] = receive(target, 1)
            assert record.value == b"2"
            target.commit([record])
            assert collect(source, 2) == [Acknowledged(1), Acknowledged(2)]

    def test_a_commit_during_it_is_unavailable(
        self,
        proxied: KafkaBroker,
        topic: str,
        proxy: KafkaProxy,
    ) -> None:
        hurried = like(proxied, timing=KafkaTiming(commit=0.5, session=6.0))
        with closing(hurried.publisher()) as source:
            source.publish(Message(topic, "key", b"1"), token=1)
            collect(source, 1)
        with closing(hurried.subscribe([topic], group=topic)) as target:
            records = receive(target, 1)
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                target.commit(records)

    def test_closing_during_it_is_quick_and_leaves_no_thread(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        before = set(threading.enumerate())
        hurried = like(proxied, timing=KafkaTiming(close=0.2))
        source = hurried.publisher()
        target = hurried.subscribe([topic], group=topic)
        source.publish(Message(topic, "key", b"1"), token=1)
        receive(target, 1)
        proxy.cut()
        source.publish(Message(topic, "key", b"2"), token=2)
        began = time.monotonic()
        source.close()
        target.close()
        assert time.monotonic() - began < 9  # a client by itself takes ten and more
        assert {report.token: type(report) for report in source.reports(timeout=0)}[2] is Failed
        until(lambda: set(threading.enumerate()) <= before)

    @pytest.mark.transactions
    def test_a_commit_of_a_transaction_can_be_called_again(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        with closing(proxied.publisher(transactional_id=topic)) as source:
            source.publish(Message(topic, "key", b"1"), token=1)
            source.reports(timeout=0.5)
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                source.commit(timeout=0.5)
            with pytest.raises(BrokerUnavailable, match="commit"):
                source.publish(Message(topic, "key", b"2"), token=2)
            proxy.restore()
            until(lambda: not is_unavailable(lambda: source.commit(timeout=1)))
            assert collect(source, 1) == [Acknowledged(1)]

    def test_nothing_answers(self, client: str) -> None:
        address = KafkaAddress((f"127.0.0.1:{free_port()}",))
        nobody = KafkaBroker(address, client=client, timing=KafkaTiming(answer=0.5, connect=0.5))
        with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:\d+"):
            nobody.check()
        with pytest.raises(BrokerUnavailable):
            nobody.publisher().publish(Message("a", "key", b""), token=1)
        with pytest.raises(BrokerUnavailable):
            nobody.subscribe(["a"], group="g").receive(timeout=0.1, limit=1)

    def test_one_that_is_slow_answers(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says so, and at start-up it is waited for."""
        hurried = like(proxied, timing=KafkaTiming(create=1.0))
        real, asked = KafkaAdminClient.list_topics, 0

        def list_topics(client: KafkaAdminClient) -> list[str]:
            nonlocal asked
            asked += 1
            client.describe_cluster()
            if asked < 3:
                proxy.stall()
            try:
                return real(client)
            finally:
                proxy.restore()

        monkeypatch.setattr(KafkaAdminClient, "list_topics", list_topics)
        with pytest.raises(BrokerSlow, match=r"a Kafka broker answers at .*, but not in time: "):
            hurried.ensure_topics([topic])
        await_broker(hurried, topics=[topic])
        assert asked == 3

    def test_a_subscription_to_one_that_is_slow(self, broker: KafkaBroker, topic: str) -> None:
        """It greets whoever comes, and then does not answer."""
        host, port = broker.address.servers[0].rsplit(":", 1)
        with SlowProxy(host, int(port)).running() as proxy:
            proxy.stall()
            address = KafkaAddress((f"127.0.0.1:{proxy.port}",))
            slow = KafkaBroker(address, client=broker.client, timing=KafkaTiming(connect=1.5))
            with closing(slow.subscribe([topic], group=topic)) as subscription:
                with pytest.raises(
                    BrokerSlow, match=r"a Kafka broker answers at .*, but not in time"
                ):
                    subscription.receive(timeout=0.1, limit=1)
                proxy.restore()
                assert subscription.receive(timeout=0.1, limit=1) == []

    def test_at_start_up_nobody_is_waited_for_who_never_answered(self, client: str) -> None:
        address = KafkaAddress((f"127.0.0.1:{free_port()}",))
        nobody = KafkaBroker(address, client=client, timing=KafkaTiming(answer=0.5))
        with pytest.raises(BrokerUnavailable, match="no Kafka broker answers"):
            await_broker(nobody, topics=["a"])

    def test_one_that_acknowledges_nothing_is_told_of(
        self,
        proxied: KafkaBroker,
        topic: str,
        proxy: KafkaProxy,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As where replicas are missing: both clients are connected, wait, and say nothing."""
        hurried = like(proxied, timing=KafkaTiming(stalled_after=1.0))
        with closing(hurried.publisher()) as source:
            source.publish(Message(topic, "key", b""), token=0)
            collect(source, 1)
            proxy.stall()
            source.publish(Message(topic, "key", b"x"), token=1)
            until(lambda: not source.reports(timeout=0.1) and "acknowledges nothing" in caplog.text)
            proxy.restore()
            assert collect(source, 1) == [Acknowledged(1)]
            assert "answers again" in caplog.text

    def test_a_queue_that_is_full(
        self, proxied: KafkaBroker, topic: str, proxy: KafkaProxy
    ) -> None:
        with closing(like(proxied, max_queued_bytes=1_000).publisher()) as source:
            source.publish(Message(topic, "key", b""), token=0)
            collect(source, 1)
            proxy.stall()
            source.publish(Message(topic, "key", b"x" * 1_000), token=1)
            with pytest.raises(BrokerUnavailable, match=r"wait for .* already"):
                source.publish(Message(topic, "key", b"x" * 100), token=2)
            proxy.restore()
            assert collect(source, 1) == [Acknowledged(1)]
