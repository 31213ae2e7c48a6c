"""Strategies of hypothesis that several tests share."""

from functools import partial

from hypothesis import strategies as st

# Each character that UTF-8 has. `st.text()` and `codec="utf-8"` mean the same, but try every code
# point first: for seconds, in each process of a fresh checkout.
CHARACTERS = st.characters(exclude_categories=["Cs"])

text = partial(st.text, CHARACTERS)
