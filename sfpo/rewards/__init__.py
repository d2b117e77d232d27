"""The one grader: from a completion's text to a verdict."""
