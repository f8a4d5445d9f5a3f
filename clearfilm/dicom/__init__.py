"""Reading, checking and decoding of DICOM objects; identifiers; codecs."""
