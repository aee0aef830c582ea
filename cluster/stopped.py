"""How a job says that it ended early because it was told to."""


class Stopped(Exception):
    """The job stopped and goes on from its checkpoint when it is started again; the message says where."""
