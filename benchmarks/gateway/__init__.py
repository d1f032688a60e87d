"""What the gateway costs: the same requests to a tiny backend directly and through proxies, on one machine."""
