"""Stand-in for transformers, whose command alone is simulated (lab_transformers)."""

__version__ = "5.19.0"
