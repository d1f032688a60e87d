"""What an operator does beside deploying: look at all hosts again and again, go into a container, restart an instance.

`rounds` asks all hosts at once and waits for none of them; `places` finds what a person names.
"""
