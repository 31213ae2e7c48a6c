from enum import Enum

class SagaExecutionGraph: ...

class CompensationType(Enum):
    MECHANICAL = "mechanical"
    SEMANTIC = "semantic"
    MANUAL = "manual"
