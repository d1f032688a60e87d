"""What is true on a host, found out in one command."""
