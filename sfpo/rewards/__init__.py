"""The graders: from the text of a completion to a verdict, correct or not."""
