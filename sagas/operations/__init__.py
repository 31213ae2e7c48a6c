"""Show sagas to people, and carry out what people decide about sagas.

The management command `sagas`, an app's own pages and sagaz's tools call this room. Reading goes
to the models; every change goes through `sagas.journal`, with who, why and when beside it.

Nothing here runs a step or talks to a worker: a worker finds a change in the database.
"""
