"""Hold the declarations of apps: saga classes, hooks, cancel rules, identities of steps.

All further packages of `sagas` read declarations here; apps declare through the functions exported
by `sagas`. Everything is found and checked once, when Django starts, to refuse an unsafe saga
before the first run.

Nothing here reads or writes the database, and nothing runs a step. Of the rest of `sagas` this
package knows the enumerations in `sagas.models`, and the errors.
"""
