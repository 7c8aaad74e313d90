"""From a region of sky to a patch in the memory of a backend."""
