"""From the files of a data set, or of one's own images and labels, to a `Release`: one file for each kind."""
