"""Executed notebooks as a web site."""
