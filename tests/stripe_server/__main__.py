import argparse
import sys
from contextlib import suppress

from tests.stripe_server.server import Server


def main() -> None:
    parser = argparse.ArgumentParser(description="A Stripe for tests")
    parser.add_argument("--port", type=int, default=0)
    with Server(parser.parse_args().port) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
