"""Analyse, conclude, deliver, and the schedule."""
