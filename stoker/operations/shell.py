"""A host's shell for code that runs while an operation is executed."""

from __future__ import annotations

import shlex
from typing import Any

from pyinfra import logger
from pyinfra.api import StringCommand
from pyinfra.connectors.util import clear_askpass_cache

from stoker.ready.wait import ConnectionLost
from stoker.steps.action import Say, Shell

#: pyinfra's own global arguments that decide who runs a command.
_PRIVILEGES = (
    "_sudo",
    "_sudo_user",
    "_use_sudo_login",
    "_sudo_password",
    "_preserve_sudo_env",
    "_su_user",
    "_use_su_login",
    "_doas",
    "_doas_user",
)


def shell_on(host: Any) -> Shell:
    """Run scripts on the host with the privileges of the operation that is being executed.

    The shell raises ConnectionLost, after it has tried to connect again.
    """
    given = host.current_op_global_arguments or {}
    privileges = {name: given[name] for name in _PRIVILEGES if given.get(name)}

    def shell(script: str, *, stdin: str | None = None) -> tuple[bool, list[str]]:
        try:
            ok, output = host.run_shell_command(StringCommand("sh -c", shlex.quote(script)), _stdin=stdin, **privileges)
        except Exception as error:  # paramiko, gevent and pyinfra each raise their own
            _reconnect(host)
            raise ConnectionLost(str(error) or type(error).__name__) from error
        # sudo and login shells say things on stderr (an unknown host name, a locale) that are no part of the answer.
        return ok, list(output.stdout_lines if ok else output.output_lines)

    return shell


def _reconnect(host: Any) -> None:
    """A dropped connection must not end a wait of minutes. Whether it came back is seen at the next command."""
    host.connected = False
    clear_askpass_cache(host)  # after a reboot the file is gone
    try:
        host.connect(show_errors=False)
    except Exception:
        return


def say_on(host: Any) -> Say:
    def say(text: str) -> None:
        host.log(text, log_func=logger.info)

    return say
