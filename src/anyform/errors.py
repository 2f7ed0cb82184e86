"""Everything anyform raises on purpose, and the exit code each becomes on the command line.

    AnyformError                      1   (never raised itself)
    ├── BadInput                      2   a prompt, file, path or argument that cannot be used
    │   └── BadSetting                2   an unknown, mistyped or out-of-range setting
    ├── MissingDependency             3   an optional package is not installed
    ├── WeightsError                  3   weights missing, damaged, of another model, or not allowed
    │   └── LicenceNotAccepted        3   weights whose licence the user has not accepted yet
    ├── DeviceUnavailable             3   a GPU was named that this machine or this torch cannot use
    ├── OutOfMemory                   4   the work does not fit this machine
    ├── GateFailed                    5   the result is not good enough to be saved as a success
    └── Interrupted                 130   stopped by the user; the work can be resumed

Every message is one sentence that says what is wrong, with the numbers, and what to do about it.
"""


class AnyformError(Exception):
    """Base of all errors below; `exit_code` is what the command line returns."""

    exit_code = 1


class BadInput(AnyformError):
    """A prompt, file, path or argument cannot be used; the message says why and what would work."""

    exit_code = 2


class BadSetting(BadInput):
    """A setting is unknown, of the wrong type, or out of range."""


class MissingDependency(AnyformError):
    """An optional package is needed. `MissingDependency("h5py", extra="wala-formats")`."""

    exit_code = 3

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}, which is not installed: pip install 'anyform[{extra}]'")
        self.package, self.extra = package, extra


class WeightsError(AnyformError):
    """Weights are missing, damaged, or belong to another model; nothing was loaded."""

    exit_code = 3


class LicenceNotAccepted(WeightsError):
    """The weights carry a licence that the user has to accept once before their first use."""


class DeviceUnavailable(AnyformError):
    """A device was named that this machine or this build of torch cannot use."""

    exit_code = 3


class OutOfMemory(AnyformError):
    """The work does not fit; the message names the next thing to try."""

    exit_code = 4


class GateFailed(AnyformError):
    """The result is empty, non-finite, constant, open or otherwise below the gate; nothing was saved."""

    exit_code = 5


class Interrupted(AnyformError):
    """The user stopped the run; a checkpoint was kept where the work supports `--resume`."""

    exit_code = 130
