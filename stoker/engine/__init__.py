"""What an engine is to the rest of Stoker, and what several engines share. The engines themselves are in stoker/engines."""
