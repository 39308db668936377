"""The limits of `stillhouse.contract.bounds`, under the name by which inspection knows them."""

from stillhouse.contract.bounds import (
    FREE_BYTES,
    MAX_EXPANSION,
    MIB,
    Frugal,
    UnpacksTooLargeError,
    check_expansion,
    gunzip,
)

__all__ = ["FREE_BYTES", "MAX_EXPANSION", "MIB", "Frugal", "UnpacksTooLargeError", "check_expansion", "gunzip"]
