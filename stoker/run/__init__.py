"""Runs a deploy through pyinfra's own machinery, planned before it is executed, with exit codes that mean something."""
