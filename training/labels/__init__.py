"""Labels out of reports: rules, second opinion, audit."""
