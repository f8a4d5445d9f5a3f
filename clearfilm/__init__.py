"""What every process of the node shares: configuration, errors, logs, DICOM handling, the network."""

__version__ = "0.1.0"
