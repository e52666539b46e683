"""The verbs of the command line, one file each. Heavy modules are imported where a verb runs, so that help answers
at once."""
