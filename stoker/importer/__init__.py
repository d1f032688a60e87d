"""From a Compose file that somebody made by hand to a fleet: what it says, what is corrected, what cannot be said. Pure but for reading files."""
