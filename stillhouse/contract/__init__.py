"""What client, API, database, worker and engine agree on.

A leaf: the standard library and pydantic, nothing else. Input models refuse unknown keys; readers of
events, states and resources are lenient, so that an older client survives a newer server.
"""
