"""Run one saga in one worker: drive sagaz's engine, and write the journal of each step.

`worker` calls `SagaRun` for each saga that was claimed, and lends the run shared threads and timing
(`RunResources`). Only `run` touches sagaz's engine. All writing goes through `journal`: no SQL
here, and nothing about claims, leases or a second saga.
"""
