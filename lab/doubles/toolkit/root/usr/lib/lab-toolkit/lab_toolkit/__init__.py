"""The NVIDIA Container Toolkit of the lab, after version 1.20.0."""

VERSION = "1.20.0"
COMMIT = "3edc8e5e4ba1b1ab6ff5ac6ed1c0d3c5bf9c0b1a"
