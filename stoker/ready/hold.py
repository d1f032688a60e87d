"""Waiting on the host itself, at next to no cost, until there is something to look at.

A look costs a host some 20 ms of processor time (sh, curl, base64), and what sshd and Docker take. So each look begins with a hold: one bash that
forks nothing and ends as soon as a container's process is gone, a log has grown, an engine's health is another, an answer
has come or nvidia-smi complains; at the latest after the seconds given. When nobody waits for its words any more it ends
by itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

TICK_SECONDS = 0.5
#: A log that grows all the time ends a hold only after so long: that is how old the view of a busy log may be.
GROWN_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Heed:
    """What of one instance ends a hold. Empty fields are not heeded.

    `pid` on the host of the container's first process; `log_path` of Docker's file; `code` of the health as last seen (0:
    no answer), None when it does not matter; `answer` the file that the request on its way will leave.
    """

    pid: int = 0
    log_path: str = ""
    address: str = ""
    port: int = 0
    path: str = ""
    code: int | None = None
    answer: str = ""

    def words(self) -> list[str]:
        code = "" if self.code is None else f"{self.code:03d}"
        return [str(self.pid or ""), self.log_path, self.address, str(self.port), self.path, code, self.answer]


NOTHING = Heed()

# $1 ticks, $2 ticks before a grown log counts, $3 file as old as the last look at the logs, $4 nvidia-smi's output or "",
# then seven words for each instance. /dev/tcp and `read -t` are bash's own: no process is started in the loop.
_HOLD = r"""
trap '' PIPE
exec 9<> <(:)
ticks=$1 settled=$2 mark=$3 cards=$4
shift 4
health() {
  got=
  { exec 8<>"/dev/tcp/$1/$2"; } 2>/dev/null || { got=000; return; }
  printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$3" "$1" >&8 2>/dev/null
  read -r -t 1 -u 8 _ got _ 2>/dev/null
  exec 8>&-
  [[ $got == [0-9][0-9][0-9] ]] || got=000
}
n=0
while (($#)); do
  pids[n]=$1 logs[n]=$2 addresses[n]=$3 ports[n]=$4 paths[n]=$5 codes[n]=$6 answers[n]=$7
  n=$((n + 1))
  shift 7
done
for ((t = 1; t <= ticks; t++)); do
  read -r -t 0.5 -u 9
  for ((i = 0; i < n; i++)); do
    [[ -n ${pids[i]} && ! -d /proc/${pids[i]} ]] && exit
    [[ -n ${answers[i]} && -e ${answers[i]} ]] && exit
    ((t >= settled)) && [[ -n ${logs[i]} && ${logs[i]} -nt $mark ]] && exit
    ((t % 2 == 0)) && [[ -n ${codes[i]} ]] && health "${addresses[i]}" "${ports[i]}" "${paths[i]}" && [[ $got != "${codes[i]}" ]] && exit
  done
  if [[ -n $cards ]] && ((t % 4 == 0)); then
    mapfile -t said <"$cards"
    ((${#said[@]})) && [[ ${said[-1]} != GPU-* ]] && exit
  fi
done 2>/dev/null
exit 0
""".strip()


def hold_line(seconds: float, heeds: Sequence[Heed], mark: str, cards: str = "") -> str:
    """A line of POSIX sh that waits up to `seconds`, or less when something happens."""
    ticks, settled = max(1, round(seconds / TICK_SECONDS)), round(GROWN_SECONDS / TICK_SECONDS)
    words = [str(ticks), str(settled), mark, cards, *(word for heed in heeds for word in heed.words())]
    return f"bash -c {shlex.quote(_HOLD)} hold {' '.join(map(shlex.quote, words))} </dev/null"
