"""What consuming applications need to know: where each model is reached, under which name, with which key."""
