"""Take orders and fulfil them: the sample domain on top of outbox and sagas.

Used by `config` alone. The app writes rows and enqueues commands in one transaction; its saga
reserves, charges and ships. Nothing here knows the relay or a broker, and of `sagas`, `outbox` and
`saga_runtime` only the public face is used.
"""
