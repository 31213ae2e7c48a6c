from enum import Enum

class SagaStatus(Enum):
    PENDING = "pending"
    EXECUTING = "executing"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    PARTIALLY_COMMITTED = "partially_committed"
    FORWARD_RECOVERY = "forward_recovery"

class SagaStepStatus(Enum):
    PENDING = "pending"
    EXECUTING = "executing"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    FAILED = "failed"
    TAINTED = "tainted"
    SKIPPED = "skipped"
