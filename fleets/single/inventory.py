"""One host. To deploy onto the machine that you sit at, without SSH: single = [("@local", {"address": "192.168.31.40"})]"""

single = ["192.168.31.40"]
