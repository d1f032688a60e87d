"""The machines, by what they do. A host may stand in several groups; group_data/ holds what each group means.

Anything after a host's address is data for that host alone:
    llm = [("192.168.31.10", {"ssh_user": "operator", "_sudo": True})]
"""

llm = ["192.168.31.10"]
embedding = ["192.168.31.65"]
