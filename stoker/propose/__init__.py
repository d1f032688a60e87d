"""A fleet that fits the cards of some hosts: which models, how many instances on a card, ports, a gateway. Pure but for command and look."""
