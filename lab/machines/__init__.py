"""The lab's machines: two bare GPU hosts and the machine that stands for the internet, on one computer.

The commands lab/up, lab/down, lab/status, lab/run, lab/forward, lab/fault, lab/rebuild and lab/reboot are thin fronts of this
package. It needs Python 3.11 and the standard library only, so that the lab starts before any virtual environment exists.

    requirements  what this computer must have; installs missing Debian packages
    daemon        the lab's own containerd and dockerd
    rootfs        a Debian root file system by mmdebstrap
    images        root file systems with their additions, cached by the hash of their inputs
    network       the network namespace, the bridge, a machine's cable
    hosts         one machine: create, start, wait, throw away
    access        the ssh key, known_hosts and resolver that lab/run uses
    content       what the internet machine serves
    up, down, ... one module for each command
"""
