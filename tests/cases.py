"""Many small cases in one test."""

from contextlib import contextmanager


@contextmanager
def case(*values):
    """Say of which case an error within is."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {', '.join(map(repr, values))[:300]}")
        raise
