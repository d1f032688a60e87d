"""Proves that a fleet works, by real requests to what serves: every instance, every route, every container.

Pure evaluation (:mod:`stoker.smoke.answers`, :mod:`stoker.smoke.containers`) is apart from contact with hosts
(:mod:`stoker.smoke.curl`, :mod:`stoker.smoke.stream`, :mod:`stoker.smoke.docker_there`).
"""
