"""The checks of the preflight: each a module with one function ``check(look)``; stoker/plan/preflight.py names them in order."""
