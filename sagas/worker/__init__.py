"""Run many sagas in one process: claim them, keep their leases, watch the threads, end in time.

`SagaService` is what `manage.py run_saga_consumer` and `manage.py up` run, `run_saga_sync` what
apps call; nothing below this room may import it. How one saga runs is a matter of `run`, what is
written of `journal`: here must be no SQL, and nothing of sagaz.
"""
