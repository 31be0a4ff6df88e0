"""What a person looks at: the summary of a run, the story of an exec, one place in all three spaces."""
