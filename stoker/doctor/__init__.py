"""``stoker doctor``: the preflight's checks on a live fleet, and those that need a running system."""
