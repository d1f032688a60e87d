"""Pulling an image with figures: what `docker pull` shows a person at a terminal, added up over the layers.

Without a terminal docker pull names no bytes, and asking Docker's API instead would lose the credentials and credential helpers
of the docker command. So it gets a terminal (script(1)), and perl adds up what it draws there:
bsdutils and perl-base are essential packages of Debian and Ubuntu. awk would not do: mawk reads a pipe by whole buffers.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

# docker pull (20.10 to 29) draws "0a1b2c3d4e5f: Downloading [==>  ]  12.3MB/45.6MB", a carriage return after it, and moves the cursor
# in between. Sizes are decimal (docker/go-units). A layer names its size when its download begins: the total grows.
# A layer is loaded at "Verifying Checksum", "Download complete" or "Extracting", and there at "Pull complete" or "Already exists".
_ADD_UP = r"""
use strict;
my (%state, %got, %size, $code);
my $last = "";
my %unit = (B => 1, kB => 1e3, MB => 1e6, GB => 1e9, TB => 1e12);
sub told {
  my ($done, $whole, $loaded, $there) = (0, 0, 0, 0);
  for my $id (keys %state) {
    my $size = $size{$id} // 0;
    $whole += $size;
    my $here = $state{$id} eq "loaded" || $state{$id} eq "there";
    $loaded += $here;
    $there += $state{$id} eq "there";
    $done += $here ? $size : $got{$id} // 0;
  }
  my $layers = keys %state;
  my $line = sprintf "pulled %.2f of %.2f GB, %d of %d layers", $done / 1e9, $whole / 1e9, $there, $layers;
  $line .= ", unpacking" if $loaded == $layers && $there < $layers;
  print "$line\n" if $line ne $last;
  $last = $line;
}
$| = 1;
$/ = "\r";
while (<STDIN>) {
  s/\e\[[0-9;?]*[A-Za-z]//g;
  for (split /[\r\n]+/) {
    if (/^ended (\d+)$/) { $code = $1 }
    elsif (/^([0-9a-f]{12}): (.*)/) {
      my ($id, $what) = ($1, $2);
      if ($what =~ /^Downloading/) {
        $state{$id} = "loading";
        ($got{$id}, $size{$id}) = ($1 * $unit{$2}, $3 * $unit{$4}) if $what =~ m!([\d.]+)([kMGT]?B)/([\d.]+)([kMGT]?B)!;
      }
      elsif ($what =~ /^(Download complete|Verifying|Extracting)/) { $state{$id} = "loaded" }
      elsif ($what =~ /^(Pull complete|Already exists)/) { $state{$id} = "there" }
      else { $state{$id} //= "waiting" }
      told;
    }
    elsif (/\S/) { print "$_\n" }
  }
}
exit($code // 1);
""".strip()

_TOLD = re.compile(r"^pulled ([\d.]+) of ([\d.]+) GB, (\d+) of (\d+) layers(?:, unpacking)?$")


def pull_script(image: str) -> str:
    """Pull, print a line whenever a figure changes and everything that is no figure, and end as docker pull does."""
    pull = shlex.quote(f"docker pull {shlex.quote(image)}")
    return f"{{ script -qec {pull} /dev/null </dev/null; code=$?; printf '\\r\\nended %s\\r\\n' $code; }} | perl -e {shlex.quote(_ADD_UP)}"


@dataclass(frozen=True, slots=True)
class Pulled:
    """How far a pull is: "1.20 of 3.40 GB, 5 of 12 layers", and the share of the bytes that are known."""

    words: str
    percent: float | None


def read_pulled(line: str) -> Pulled | None:
    """What a line of the script's output says; None for any other line."""
    found = _TOLD.match(line.strip())
    if not found:
        return None
    whole = float(found[2])
    return Pulled(line.strip().removeprefix("pulled "), 100.0 * float(found[1]) / whole if whole else None)
