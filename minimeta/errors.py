"""The errors minimeta raises on purpose; each carries one sentence that says what to do."""


class MinimetaError(Exception):
    """Base of every error below: catch it to catch them all."""


class ShapeError(MinimetaError, ValueError):
    """An array's shape contradicts the layer or argument it was given to."""


class SettingsError(MinimetaError, ValueError):
    """A setting makes no sense, alone or beside another."""


class DivergenceError(MinimetaError, ArithmeticError):
    """A loss stopped being finite."""


class DeviceError(MinimetaError, RuntimeError):
    """The device asked for cannot be used here."""


class DataError(MinimetaError, OSError):
    """A dataset is missing, truncated or altered."""


class CheckpointError(MinimetaError, OSError):
    """A run folder or checkpoint is missing, truncated, altered, or belongs to other settings."""


class VectorsError(MinimetaError, OSError):
    """A folder of conformance vectors is missing, truncated, altered or of another version; or results disagree with it."""


class SweepError(MinimetaError, RuntimeError):
    """Some runs of a sweep failed, or their processes died."""
