"""Measures of Stoker itself, taken in the lab. They say nothing about a real engine: engines and GPUs are simulated there."""
