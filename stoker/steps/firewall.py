"""The ports of a host's engines are closed to all but the gateways, also after a reboot; or open again."""

from __future__ import annotations

from stoker.facts.paths import FIREWALL_RULES, FIREWALL_TABLE
from stoker.facts.state import HostState
from stoker.render.firewall import ports, rules, unit
from stoker.spec.fleet import Fleet, Host
from stoker.steps.action import Action, File, write_files

UNIT = "stoker-firewall.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"


def files() -> list[str]:
    """What the steps must see of it."""
    return [FIREWALL_RULES, UNIT_FILE]


def actions(fleet: Fleet, host: Host, state: HostState) -> list[Action]:
    return _open(state) if host.settings.firewall == "off" else _closed(fleet, host, state)


def _closed(fleet: Fleet, host: Host, state: HostState) -> list[Action]:
    found = []
    # nft reads the new rules before they replace the old ones.
    for file, check, after in (
        (File(FIREWALL_RULES, rules(fleet, host), "600"), 'nft -c -f "$new"/firewall.nft', ""),
        (File(UNIT_FILE, unit()), "", "systemctl daemon-reload"),
    ):
        if not file.is_on(state):
            script, stdin = write_files([file], file.path.rpartition("/")[0], check, after)
            found.append(Action(f"write {file.path}", script, stdin))
    if found or state.firewall != "as written" or state.units.get(UNIT) != "active enabled":
        known = ", ".join([*(other.name for other in fleet.hosts_that_ask(host)), *host.settings.engine_networks])
        found.append(
            Action(
                f"close ports {', '.join(map(str, ports(host)))} to all but this host{f', {known}' if known else ''}",
                f"systemctl enable {UNIT} && systemctl reload-or-restart {UNIT}",
            )
        )
    return found


def _open(state: HostState) -> list[Action]:
    if not state.firewall and UNIT not in state.units and not any(path in state.files for path in files()):
        return []
    return [
        Action(
            "open the engines' ports again",
            f"systemctl disable --now {UNIT}; rm -f {' '.join(files())} && systemctl daemon-reload && "
            # Still there when the unit did not run.
            f"{{ ! nft list table {FIREWALL_TABLE} >/dev/null 2>&1 || nft delete table {FIREWALL_TABLE}; }}",
        )
    ]
