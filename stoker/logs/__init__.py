"""``stoker logs``: what several containers print, in the order of time, over all hosts.

`lines` (Docker's text as lines), `remote` (the command on a host), `stream` (one container's lines), `merge` (several
in order), `errors` (which lines tell of an error), `show`, `command`.
"""
