"""What several stages share: the job, models, solves, and files that one stage writes and another reads."""
