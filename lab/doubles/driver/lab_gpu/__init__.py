"""What the simulated GPUs of a lab host are and what occupies them.

Shared by the driver double (nvidia-smi), the container toolkit double and the engine doubles. Standard library only, and quick
to import: nvidia-smi must start in a few tens of milliseconds.
"""
