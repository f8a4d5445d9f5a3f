"""Reports in: CSV, Excel, HL7 v2, DICOM SR; and their studies."""
