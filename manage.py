#!/usr/bin/env python
"""Django's command line; starts the embedded database for a command that needs it and finds none running."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    from config.embedded import postgres
    from config.embedded.process import EmbeddedServerError

    try:
        with postgres.running_for_command(sys.argv):
            execute_from_command_line(sys.argv)
    except EmbeddedServerError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
