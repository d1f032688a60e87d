"""A fleet that a program has made and a person will edit: put together, validated, written as ``inventory.py`` and ``group_data/``."""
