"""Measure the relay, sagas and HTTP beside a floor and beside other projects.

Each script is run by hand and prints a table; docs/performance.md keeps the results. Nothing else
imports this package.
"""
