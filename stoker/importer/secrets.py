"""What must not be written or printed: secrets, by the name that they have, or by their form. Pure."""

from __future__ import annotations

import re

#: Words between underscores, also at the end of another or with a number: API_KEYS, PGPASSWORD, HF_TOKEN_2, HFTOKEN2. Not TOKENIZERS,
#: BYPASS, or a number of tokens such as MAX_TOKENS.
_NAME = re.compile(
    r"PASSW(?:OR)?D|PASSPHRASE|SECRET|CREDENTIAL"
    r"|(?:TOKEN|KEYS?|_PWD|(?<!BY)(?<!COM)PASS)\d*(?![A-Z\d])"
    r"|^(?!.*(?:MAX|MIN|NUM|BATCHED)).*TOKENS\d*(?![A-Z\d])"
)

#: ``https://user:password@host``, ``https://token@host``.
_IN_ADDRESS = re.compile(r"://[^\s/@]+@")

_KEY_OF_JSON = re.compile(r'"([^"]+)"\s*:\s*"')


def by_name(name: str) -> bool:
    """Whether what has this name is a secret."""
    return bool(_NAME.search(name.upper()))


def by_value(value: str) -> bool:
    """Whether a value holds one: in an address, or as a text of JSON under such a name."""
    return bool(_IN_ADDRESS.search(value)) or any(map(by_name, _KEY_OF_JSON.findall(value)))
