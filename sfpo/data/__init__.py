"""Problems: generated or read from a table, cleaned, rendered into prompts, and put in order."""
