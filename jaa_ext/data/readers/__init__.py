"""One file for each data set, and for each kind of list of one's own: from its files to a `Release`."""
