"""Keys of a gateway's clients."""
