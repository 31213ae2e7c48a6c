import pytest

WITHOUT_TRANSACTIONS = ("memory", "kafka-python")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs transactions for the brokers that say they have none."""
    left_out = [
        item
        for item in items
        if item.get_closest_marker("transactions")
        and any(f"[{name}" in item.name for name in WITHOUT_TRANSACTIONS)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
