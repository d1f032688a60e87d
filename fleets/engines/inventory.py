"""One host with three V100, an engine on each."""

engines = ["192.168.31.10"]
