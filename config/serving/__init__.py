"""Run the service: the web server, its parts as threads or processes, and how a failure is shown.

Called by `manage.py`, `manage.py up` and gunicorn. What an answer says belongs into `web/`.
"""
