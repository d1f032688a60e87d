"""What must be true on a host, chapter by chapter.

Each step is a pure function of the description and of what was found on the host. It returns the actions that are
still missing, none when the host is as it should be; so a prediction and the result come from the same code.
"""
