"""lab/rebuild: throw one GPU host away and put a bare one in its place, as when a machine's disk has died.

usage: lab/rebuild HOST

The new host has the same name, address, release and cards, an empty disk and a new ssh host key. known_hosts of lab/run keeps
the old key on purpose: whoever connects next must notice. The other machines are not touched.
"""

from __future__ import annotations

import time

from lab.machines import access, config, hosts, images, marker, requirements, ui
from lab.machines.arguments import parse
from lab.machines.running import need_lab, need_made


def main(arguments: list[str]) -> int:
    """The command. Raises LabError."""
    name = parse(__doc__ or "", arguments, words=1).words[0]
    requirements.need_root()
    lab = config.load()
    host = lab.host(name)
    started = time.monotonic()
    with marker.only_one(f"lab/rebuild {name}"):
        need_lab(lab)
        need_made(host)
        images.build(host)
        hosts.create(lab, host)
        hosts.start(lab, host)
    ui.say(
        f"{host.name} ({host.address}) is a bare machine again, after {time.monotonic() - started:.1f} s. It has a new ssh host key; to accept it:\n"
        f"    lab/run ssh-keygen -f {access.KNOWN_HOSTS} -R {host.address} && lab/run ssh -o StrictHostKeyChecking=accept-new {host.address} true"
    )
    return 0
