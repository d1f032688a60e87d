"""What the person wrote in ``inventory.py`` and ``group_data/``, validated and typed.

Knows nothing of pyinfra, SSH or the state of any host; :mod:`stoker.inventory` is the edge that
reads the files.
"""
