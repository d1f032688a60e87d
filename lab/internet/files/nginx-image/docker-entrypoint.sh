#!/bin/sh
# The official image's entry point prepares templates and then runs its arguments; the lab's image only runs them.
exec "$@"
