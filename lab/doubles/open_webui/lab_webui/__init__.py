"""Open WebUI double: the pages and paths of Open WebUI 0.11.3 that a deploy and its checks ask for. Standard library only."""

VERSION = "0.11.3"
