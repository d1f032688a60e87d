"""What an instance of vLLM will take of a card's memory, by the engine's own arithmetic. Pure, whole bytes throughout."""
