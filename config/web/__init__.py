"""Answer HTTP requests: the API, pages, middlewares, and every error as a problem (RFC 9457).

Called by Django through `config.settings` and `config.urls`; `serving/` uses `problems` for
requests that never reach Django. Business rules belong into the apps, and processes into
`serving/`.
"""
