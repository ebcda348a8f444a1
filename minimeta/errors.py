"""The errors of minimeta. Every message says what is wrong and what to do."""


class MinimetaError(Exception):
    """Base of all errors of minimeta. Catching it catches them all."""


class ShapeError(MinimetaError, ValueError):
    """An array's shape does not fit the layer or argument that receives it."""


class SettingsError(MinimetaError, ValueError):
    """A setting makes no sense, alone or together with another setting."""


class DivergenceError(MinimetaError, ArithmeticError):
    """A loss stopped being finite."""


class DeviceError(MinimetaError, RuntimeError):
    """The requested device cannot be used on this machine."""


class DataError(MinimetaError, OSError):
    """A dataset is missing, truncated or altered."""

    def __str__(self) -> str:
        """The message in one line: a file's name may hold any character."""
        text = super().__str__()
        return "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
        )


class CheckpointError(MinimetaError, OSError):
    """A run folder or checkpoint is missing, truncated, altered, or belongs to
    other settings."""


class VectorsError(MinimetaError, OSError):
    """Conformance vectors cannot be used, or results disagree with them.

    The folder may be missing, truncated, altered or of another version.
    """


class SweepError(MinimetaError, RuntimeError):
    """Some runs of a sweep failed, or their processes died."""
