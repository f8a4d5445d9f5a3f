"""The DICOM objects that go back into the study: Secondary Capture and structured report."""
