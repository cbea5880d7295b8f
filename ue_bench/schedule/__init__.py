"""Running tasks on device slots. Knows nothing of what a task is."""
