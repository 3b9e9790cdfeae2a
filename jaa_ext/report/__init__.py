"""A run, an evaluation or a cross validation as one HTML file."""
