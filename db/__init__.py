"""Tables, sessions, the job queue and the migrations."""
