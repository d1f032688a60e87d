#!/bin/sh
# Put the internet machine's services into a root file system that has the packages of packages.txt.
# Usage: install.sh ROOTFS
set -eu

root=$1
here=$(dirname "$(readlink -f "$0")")
files=$here/files/machine

install -d "$root/etc/lab-internet" "$root/usr/lib/lab-internet" "$root/srv/internet"
install -m 0644 "$files/nginx.conf" "$root/etc/nginx/nginx.conf"
install -m 0644 "$files/dnsmasq.conf" "$files/registry.yml" "$files/pebble.json" "$root/etc/lab-internet/"
install -m 0644 "$files"/*.service "$root/etc/systemd/system/"
install -m 0644 "$here/hub.py" "$here/fault.py" "$root/usr/lib/lab-internet/"
printf '#!/bin/sh\nexec /usr/bin/python3 /usr/lib/lab-internet/fault.py "$@"\n' > "$root/usr/lib/lab-internet/fault"
chmod 0755 "$root/usr/lib/lab-internet/fault"

# Debian's own registry service has other settings and the same port.
chroot "$root" systemctl --quiet disable docker-registry.service 2>/dev/null || true
chroot "$root" systemctl --quiet enable nginx.service lab-dns.service lab-registry.service lab-hub.service lab-acme.service
