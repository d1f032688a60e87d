"""The lab's third machine: everything on it that stands for the internet.

Package repositories (Debian, Docker, NVIDIA's container toolkit), a container registry, a model hub and DNS.
`build` makes their content on the outer machine, `install.sh` and `files/` are the services of the machine,
`check` proves them from inside the lab's network.
"""
