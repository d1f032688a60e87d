#!/bin/sh
# Brings back the containers that stood here before Stoker's:  sh go-back.sh [NAME...]
# NAME is a container of Stoker's; without one all are replaced by what was there before. May be run again.
#
# `names` has the old containers in the order in which they are started. For each, containers/NAME.json is what Docker's API makes it
# from, and containers/NAME.about says: the image's id, the image's name, running or stopped, the container of Stoker's in its place.
set -eu
cd "$(dirname "$0")"

wanted=
for name in $(cat names); do
    read -r _ _ _ instead <"containers/$name.about"
    case " $* " in "  " | *" $instead "*) wanted="$wanted $name" ;; esac
done

# Whose a container is, Stoker's label tells; the old ones have none.
stokers() { test -n "$(docker inspect -f '{{ index .Config.Labels "stoker.configuration" }}' "$1" 2>/dev/null)"; }

for name in $wanted; do
    read -r _ _ _ instead <"containers/$name.about"
    if stokers "$instead"; then docker rm -f "$instead" >/dev/null; fi
done

status=0
for name in $wanted; do
    read -r id reference state _ <"containers/$name.about"
    if ! docker inspect "$name" >/dev/null 2>&1; then
        # By its name where that is still the same image, else by its id.
        test "$(docker image inspect -f '{{ .Id }}' "$reference" 2>/dev/null)" = "$id" || reference=$id
        sed "s|\"Image\": \"$id\"|\"Image\": \"$reference\"|" "containers/$name.json" |
            curl -q -sS --fail-with-body --unix-socket /var/run/docker.sock -H 'Content-Type: application/json' --data-binary @- \
                "http://localhost/containers/create?name=$name" >/dev/null || { echo "$name: could not be made again" >&2; status=1; continue; }
    fi
    if [ "$state" = running ]; then docker start "$name" >/dev/null || { status=1; continue; }; fi
    echo "$name is back"
done
# Whoever goes back wholly has finished with this copy: the next `stoker adopt` makes a new one.
[ $# -gt 0 ] || [ $status -ne 0 ] || touch closed
exit $status
