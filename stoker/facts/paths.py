"""Where Stoker keeps its own things on a host, beside the directories of the stacks."""

HOST_STATE = "/var/lib/stoker"
HOST_LOCKS = f"{HOST_STATE}/locks"
HOST_CACHE = f"{HOST_STATE}/cache"
#: One directory for each gateway's container, which sees it: the file `drained` there names members that get no new requests.
HOST_GATEWAYS = f"{HOST_STATE}/gateway"

#: One directory for each gateway's container that has keys of services elsewhere, which that container alone sees.
HOST_SERVICE_KEYS = "/etc/stoker/services"

#: What ``nft -f`` makes the table below from.
FIREWALL_RULES = "/etc/stoker/firewall.nft"
FIREWALL_TABLE = "inet stoker"

#: Where Docker listens.
DOCKER_SOCKET = "/var/run/docker.sock"
