"""Alerts: which events somebody is told of, how, and what becomes of the message."""
