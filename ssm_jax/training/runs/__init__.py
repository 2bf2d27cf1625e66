"""Runs that are there: open, evaluate, analyze, summarize."""
