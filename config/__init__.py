"""Put the packages together into one service: settings, HTTP, processes.

`web/` answers requests, `serving/` runs processes, and this level holds what deployments name:
settings, `urls`, `wsgi`, `asgi`, and gunicorn's settings. No other package imports this one.
"""
