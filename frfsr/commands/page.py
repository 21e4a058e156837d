"""`frfsr page`: the engine in a browser."""

import argparse
import signal
import sys

from frfsr.commands.arguments import add_command
from frfsr.errors import UserError
from frfsr.names import DEVICES, require_device_name
from frfsr.upscaling.options import parse_pixels

EXAMPLES = """examples:
  frfsr page
  frfsr page --model frfsr-tiny runs/rec --device cuda --port 8000

The page is at 127.0.0.1, for the people of this machine; nothing that they upload is kept, and no request leaves it.
Needs the extra `page`: pip install 'frfsr[page]'.
"""

TERMINATED = 128 + signal.SIGTERM  # exit code, as shells give it


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add `frfsr page`."""
    parser = add_command(commands, "page", run, "enlarge photos in a browser", EXAMPLES)
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="NAME",
        help="networks that are offered: packaged names, folders or Hub ids; default: all packaged ones",
    )
    parser.add_argument("--device", help=f"{', '.join(DEVICES)}, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="of the address (%(default)s); 0: any free")
    limits = parser.add_argument_group("what one person may ask")
    limits.add_argument("--max-pixels", metavar="SIZE", help="largest photo, width times height, such as 2MP (1MP)")
    limits.add_argument("--max-seconds", type=int, metavar="N", help="time of one run (900)")
    limits.add_argument("--jobs", type=int, metavar="N", help="runs at the same time (1); others wait")
    limits.add_argument("--queue", type=int, metavar="N", help="how many may wait (16)")


def run(options: argparse.Namespace) -> int:
    """Serve the page until it is interrupted.

    Raises:
        UserError: a port out of range, or no such model or device.
    """
    if options.device is not None:
        require_device_name(options.device)
    if not 0 <= options.port <= 65_535:
        raise UserError(f"--port is {options.port}: it must lie between 0 and 65535.")
    pixels = None if options.max_pixels is None else parse_pixels(options.max_pixels)
    from frfsr.page.app import Limits, serve

    given = dict(photo_pixels=pixels, seconds=options.max_seconds, jobs=options.jobs, waiting=options.queue)
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the files are removed
    serve(options.model, options.device, options.port, limits)
    return 0
