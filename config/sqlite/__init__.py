"""Let the threads of a process queue for SQLite's write lock: a database backend for Django."""
