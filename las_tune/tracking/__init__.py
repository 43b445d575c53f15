"""The record of a study: ledger in MLflow, figures, the packaged model, the summary."""
