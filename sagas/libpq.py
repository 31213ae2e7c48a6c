"""Statements for PostgreSQL by way of libpq itself: a cursor takes twice the time for one, and lets
go of the interpreter several times over, which other threads then hold."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
from django.db import connection
from psycopg.pq import DiagnosticField, Escaping, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def limit_statements(seconds: float) -> None:
    """What a statement, and a pause between two, may take in this transaction."""
    limit = max(1, round(timedelta(seconds=seconds).total_seconds() * 1000))
    send(
        f"SET LOCAL statement_timeout = {limit};"
        f"SET LOCAL idle_in_transaction_session_timeout = {limit}"
    )


def send(text: str) -> list[tuple[Any, ...]]:
    """Send one message, of one or several statements, within `atomic()`; returns the rows of the
    last one, whose values are text."""
    connection.validate_no_broken_transaction()
    link = _link()
    if link.pgconn.transaction_status == TransactionStatus.IDLE:
        text = f"{_begin(link)};{text}"  # as psycopg does before the first statement
    with connection.wrap_database_errors:
        result = link.pgconn.exec_(text.encode())
        if result.status not in _FINE:
            raise _error(result)
    columns = range(result.nfields)
    return [tuple(_text(result, n, column) for column in columns) for n in range(result.ntuples)]


def bound(text: str, params: Sequence[Any]) -> str:
    """The statement with its parameters, which are texts, numbers or None, in it."""
    quote = Escaping(_link().pgconn).escape_literal
    return text % tuple(
        quote(each.encode()).decode() if isinstance(each, str) else _number(each) for each in params
    )


def _link() -> "psycopg.Connection[Any]":
    """psycopg's connection that is Django's in this thread."""
    connection.ensure_connection()
    found: psycopg.Connection[Any] = connection.connection
    return found


def _begin(link: "psycopg.Connection[Any]") -> str:
    level = link.isolation_level
    return "BEGIN" if level is None else f"BEGIN ISOLATION LEVEL {level.name.replace('_', ' ')}"


def _error(result: PGresult) -> psycopg.Error:
    if result.error_field(DiagnosticField.SQLSTATE):
        return psycopg.errors.error_from_result(result)
    return psycopg.OperationalError(result.get_error_message())  # the connection is lost


def _text(result: PGresult, row: int, column: int) -> str | None:
    value = result.get_value(row, column)
    return None if value is None else value.decode()


def _number(value: float | None) -> str:
    return "NULL" if value is None else str(value)
