"""Double of `transformers serve` 5.19.0: its interface with its faults, no model. Standard library, lab_gpu and lab_serve only."""
