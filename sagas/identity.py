import uuid

NAMESPACE = uuid.UUID("5f0c6f0e-8f1d-5c0e-9f5e-3a5a6d1d6b0a")


def saga_id(saga_name: str, key: str) -> uuid.UUID:
    """The id of the saga of that name with that business key: the same in every process."""
    return uuid.uuid5(NAMESPACE, f"{saga_name}:{key}")


def step_key(saga: uuid.UUID, step: str, kind: str) -> str:
    """The idempotency key of a step: the same for every attempt, worker and deploy."""
    return f"{saga}:{step}:{kind}"
