"""Everything that trivium raises on purpose.

TriviumError
├── ConfigError      a setting, recipe or argument that cannot be used
├── DataError        text, rows or shards that cannot be read
├── CheckpointError  a saved run that cannot be restored or written
├── HubError         a model folder or hub name that cannot be had
└── RequestError     a prompt or request that cannot be answered

Each message is one sentence for a person: what was found, what was expected, what to do.
"""


class TriviumError(Exception):
    """The root of the tree: catch this to catch all of it."""


class ConfigError(TriviumError):
    """A setting, recipe or argument that cannot be used."""


class DataError(TriviumError):
    """Text, rows or shards that cannot be read."""


class CheckpointError(TriviumError):
    """A saved run that cannot be restored or written."""


class HubError(TriviumError):
    """A model folder or hub name that cannot be had."""


class RequestError(TriviumError):
    """A prompt or request that cannot be answered."""
