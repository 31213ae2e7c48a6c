import pytest

WITH_TRANSACTIONS = ("librdkafka",)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that need transactions for all brokers but these."""
    left_out = [
        item
        for item in items
        if item.get_closest_marker("transactions")
        and not any(f"[{name}" in item.name for name in WITH_TRANSACTIONS)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
