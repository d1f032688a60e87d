"""llama.cpp double: imitates the observable behaviour of llama-server of build 11312 on NVIDIA cards. Standard library only."""

VERSION, BUILD, COMMIT = "0.5.0-dev", 11312, "0c1e57098"
FINGERPRINT = f"b{BUILD}-{COMMIT}"
"""`system_fingerprint` of every answer."""
