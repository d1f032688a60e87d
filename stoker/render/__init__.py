"""From the description and the host's GPUs to files. Pure: same input, same bytes."""
