"""One module for each engine; the word for it in a description is the module's name, with dashes. See docs/engines.md for adding one."""
