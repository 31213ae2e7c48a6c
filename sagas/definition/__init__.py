"""Hold what apps declare: saga classes, hooks, cancel rules, and how a step is identified.

Every other room of `sagas` reads declarations here; apps declare through the functions that the
package `sagas` itself exports. Everything is found and checked once, when Django starts, so that a
saga that cannot be run safely is refused before it runs.

Nothing here reads or writes the database, and nothing runs a step. Of the rest of `sagas` the room
knows the enumerations in `sagas.models`, and the errors.
"""
