"""``stoker status``: what runs on every host now.

`probe` (the question), `metrics` and `live` (the answer as data), `judge` (what it means), `combine` (what hosts say of each
other), `table` and `report` (for people, for programs), `command`.
"""
