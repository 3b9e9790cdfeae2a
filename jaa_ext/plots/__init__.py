"""Figures: scores, the course of a training, photographs, frames of videos, time lines."""
