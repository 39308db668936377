"""Uploads that survive broken connections: the tus protocol, and the artifacts that they become."""
