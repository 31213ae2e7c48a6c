"""Relays, writers and a checking reader as processes and threads of their own: what tests of the
relay from outside are made of."""
