"""Lay the ground floor: modules on which every package stands, and which no package owns.

- Text of foreign origin: `text`, `strict_json`, `nesting`, `urls`, `headers`.
- Databases and other servers: `database_errors`, `deadlocks`, `outage`, `backoff`, `async_orm`,
  `round_trips`, `lookups`.
- Threads and the event loop: `database_threads`, `hang_watch`, `abandoned_calls`, `allowance`,
  `event_loop`, `waits`.
- Long-running commands: `processes`, `supervision`, `cores`, `signs_of_life`, `commands`,
  `prometheus`, `logs`.
- Requests and people: `correlation`, `correlation_middleware`, `problems`, `interventions`,
  `read_only_admin`.

Every other package may import the ground floor. The ground floor imports no other package of this
project, no client of a broker, and not sagaz.
"""
