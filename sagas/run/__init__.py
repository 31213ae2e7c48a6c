"""Run one saga in one worker: drive sagaz's engine, and write what becomes of each step.

`SagaRun` is the way in. `worker` calls it: it claims sagas, and lends their runs what they share
(`RunResources`). This room alone touches sagaz's engine. It writes by `journal` and must hold no
SQL; of other sagas, of claims and of leases it knows nothing.
"""
