"""NVIDIA's container toolkit as the lab simulates it (version 1.20.0)."""

VERSION = "1.20.0"
