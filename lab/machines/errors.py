"""The one error of the lab that is meant for a person."""

from __future__ import annotations


class LabError(Exception):
    """Something a person can act on: what failed, where, why, and what to do next."""
