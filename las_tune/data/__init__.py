"""Images on disk: index a category, split it, decode it once, fetch and check it."""
