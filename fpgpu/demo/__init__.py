"""A synthetic survey and the main job done on it."""
