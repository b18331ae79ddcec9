"""Errors that a user can mend. The command line prints their message without a traceback and exits with 2."""


class DetectorError(Exception):
    """Something the user gave is wrong; the message says what, where, and what to do."""


class ConfigError(DetectorError):
    """A key or a value of the configuration is wrong. The message names it and says what is allowed."""


class DataError(DetectorError):
    """A data set cannot be used as it is. The message names the file, the annotation and the box."""


class MissingData(DataError):
    """A file or folder of a data set is not there. Who knows by which key the user gave it adds that to the message."""


class WeightsError(DetectorError):
    """A weights or checkpoint file is missing, damaged or does not fit the configured model."""


class CheckpointError(WeightsError):
    """A checkpoint names a class of the user's that is not trusted, or cannot be imported. Names key and class."""


class TrainingError(DetectorError):
    """Training cannot go on, for instance because a loss is not finite."""


class ExportError(DetectorError):
    """A detector cannot be written in the wanted format here. The message says why, and what can be done instead."""
