"""The `paymesh` command: the operator's tools, where the services are installed."""

import sys


def main() -> None:
    """Run the command line of the services, or say what to install."""
    try:
        from services.cli import app
    except ImportError as error:
        sys.exit(
            f"paymesh: the command needs the services ({error.name} is missing); "
            "run it from the repository after `make setup`"
        )
    app()


if __name__ == "__main__":
    main()
