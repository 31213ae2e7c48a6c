"""Run many sagas in one process: claim them, keep the leases, watch the threads, end in time.

`manage.py run_saga_consumer` and `manage.py up` run `SagaService`, apps call `run_saga_sync`;
nothing below this room may import the room. A single saga is the business of `run`, all writing of
written of `journal`: here must be no SQL, and nothing of sagaz.
"""
