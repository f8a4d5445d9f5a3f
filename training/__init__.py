"""From the archive and its reports to a promoted model."""
