"""Which errors of Django's say that the database is away, and that the same may work later."""

from django.db import InterfaceError, InternalError, OperationalError

# InternalError is what a server says that has ended our transaction or has become a replica.
AWAY = (OperationalError, InterfaceError, InternalError)
