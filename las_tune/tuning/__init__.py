"""The search: spaces, proposals, trials, finalists and promotion."""
