"""The project's settings without its middleware."""

from config.settings import *  # noqa: F403

MIDDLEWARE = []
ROOT_URLCONF = "benchmarks.bare_view"
