"""Model repositories of the lab's hub: the real models' configurations and file names, weights of a few kilobytes."""
