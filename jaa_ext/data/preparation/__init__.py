"""From a `Release` to a prepared folder, by `prepare`: its workers write parts, which are merged."""
