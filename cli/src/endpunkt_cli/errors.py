"""What the command tells a person instead of a traceback."""


class CliError(Exception):
    """Ends the command with code 1; the text is the cause and the next step."""
