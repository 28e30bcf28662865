"""The provisioner's decisions.

PURE: pydantic messages, the catalogue's types and the standard library's values. No clock, no randomness, no I/O, no
asyncio and no Kafka client enters this package: `now`, keys and facts about the disk are arguments.
"""
