"""What is known of a model before anything of it is on a host: cards, and the size of the weights. Knows nothing of pyinfra."""
