"""Attacks on a frozen system, by attackers who know everything but the random bits."""
