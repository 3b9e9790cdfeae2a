"""From a `Release` to a prepared folder: what `jaa prepare` does."""
