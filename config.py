"""pyinfra reads this before anything else: the description is checked here, before a host is contacted."""

from stoker.run.command_line import check_description

check_description()
