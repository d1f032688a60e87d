"""What the kernel enforces beside the usual: SELinux, AppArmor, cgroups."""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons

#: Docker Engine from this release on calls cgroup v1 deprecated (its list of deprecated features).
_CGROUP_1_DEPRECATED = 29


def check(look: Look) -> Reasons:
    host, guards = look.host, look.state.guards
    if guards.selinux_enforcing:
        yield Reason(
            "SELinux is enforcing: it may keep containers from the model files and settings that are mounted into them",
            "label them (chcon -Rt container_file_t DIRECTORY) or set SELinux permissive; Stoker does not label anything",
            "selinux",
            "warn",
        )
    if guards.apparmor and not guards.apparmor_parser:
        yield Reason(
            "AppArmor is on and apparmor_parser is missing: Docker starts containers without its profile",
            "apt install apparmor, if containers shall be confined",
            "apparmor",
            "note",
        )
    major = (look.state.docker_version or host.settings.versions.docker).partition(".")[0]
    if guards.cgroup_version == 1 and major.isdigit() and int(major) >= _CGROUP_1_DEPRECATED:
        yield Reason(
            f"it runs with cgroup v1, which Docker {major} calls deprecated",
            "boot with cgroup v2 (kernel parameter systemd.unified_cgroup_hierarchy=1)",
            "cgroup-v1",
            "warn",
        )
