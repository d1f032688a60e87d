"""Stoker's pyinfra operations: thin, because the decisions are made in :mod:`stoker.steps`."""
