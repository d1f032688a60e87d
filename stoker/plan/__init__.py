"""What can be known before anything is touched. Pure: facts come in as data."""
